"""bf16 in the native kernels: how numbers are rounded, and that sums are not rounded on their way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from uqabench.kernels import embedding_bag_mean, layer_norm, rms_norm, swiglu, use_backend
from uqabench.kernels.backend import native_module

BF16 = torch.bfloat16


def every_number() -> Tensor:
    """All 65,536 bf16 numbers, some twice, in rows that end in a part of a vector."""
    return (torch.arange(3450 * 19) % 2**16).to(torch.uint16).view(BF16).view(3450, 19)


def native_sum(x: Tensor, y: Tensor) -> Tensor:
    """x + y, added in fp32 and rounded."""
    with use_backend("native"):
        return rms_norm(x, torch.ones(x.shape[1], dtype=BF16), residual=y)[1]


def assert_same_numbers(got: Tensor, want: Tensor) -> None:
    """To the bit, but any NaN for a NaN."""
    assert got.dtype == want.dtype == BF16
    assert torch.equal(got.isnan(), want.isnan())
    numbers = ~want.isnan()
    assert torch.equal(got[numbers].view(torch.int16), want[numbers].view(torch.int16))


def test_every_number_comes_back(instruction_set):
    x = every_number()
    assert x.view(torch.int16).unique().numel() == 2**16
    got = native_sum(x, torch.full_like(x, -0.0))  # 0.0 would take the sign off -0.0
    assert_same_numbers(got, x)
    assert (got[x.isnan()].view(torch.int16) & 0x40).all()  # quiet


@pytest.mark.parametrize("part", [-0.75, -0.5, -0.25, 0.25, 0.5, 0.75])
def test_sums_are_rounded_to_the_nearest_and_halfway_to_the_even(instruction_set, part):
    """`part` of the distance to the next number is added; past the largest comes infinity."""
    x = every_number()
    exponent = torch.frexp(x.float())[1].clamp(-100, 128)
    step = (part * 2.0 ** (exponent - 8).double()).to(BF16)
    want = (x.float() + step.float()).to(BF16)
    assert_same_numbers(native_sum(x, step), want)
    largest = torch.finfo(BF16).max
    assert want[x == largest].isinf().all() == (part >= 0.5)


@pytest.mark.parametrize("sparse", [False, True])
def test_bags_of_one_copy_their_rows(instruction_set, sparse):
    x = every_number()
    table = torch.where(x.isnan(), 0.0, x).to(BF16).requires_grad_()
    ids = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))
    with use_backend("native"):
        means = embedding_bag_mean(table, ids, torch.arange(len(ids) + 1), sparse=sparse)
        means.backward(table.detach()[ids])
    assert torch.equal(means, table[ids])
    assert table.grad.dtype == BF16
    assert torch.equal(table.grad.to_dense(), table.detach())


def test_sums_of_many_terms_are_rounded_once():
    """bf16 ends at 256 when ones are added to it one by one."""
    count = 1000
    ones = torch.ones(count, 3, dtype=BF16)
    table = torch.zeros(1, 3, dtype=BF16, requires_grad=True)
    weight, bias = (torch.zeros(3, dtype=BF16, requires_grad=True) for _ in range(2))
    with use_backend("native"):
        bags = torch.zeros(count, dtype=torch.int64)
        embedding_bag_mean(table, bags, torch.arange(count + 1)).backward(ones)
        layer_norm(torch.zeros_like(ones), weight, bias).backward(ones)
    assert table.grad.eq(count).all() and bias.grad.eq(count).all()
    with use_backend("native"):
        assert embedding_bag_mean(ones, bags, torch.tensor([0, count])).eq(1).all()


def test_a_mixture_of_dtypes_is_refused():
    x = torch.zeros(2, 3)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        native_module().swiglu_forward(x, x.to(BF16), x, threads=1)


def test_negated_memory_is_not_read_as_it_is():
    x = torch._neg_view(torch.ones(2, 3, dtype=BF16))
    with use_backend("native"), pytest.raises(RuntimeError, match="resolve_neg"):
        swiglu(x, x)
