"""HSTU's block as one operator on a GPU against the operators that it is made of, one after the other."""

from __future__ import annotations

import pytest
import torch

from uqabench.kernels import hstu_attention, linear_silu, norm_gate, use_backend

from ..cases import offsets_of
from ..conftest import TOLERANCES, assert_close, outputs_and_gradients
from .conftest import DEVICE

pytest.importorskip("triton")

from uqabench.kernels.hstu_attention.block import hstu_block  # noqa: E402

LENGTHS, MAX_LEN, HEADS, QK, V, WIDTH = [35, 0, 70, 1], 72, 2, 16, 19, 24


def make_inputs(bias: bool, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (sum(LENGTHS), WIDTH), "weight": (2 * HEADS * (QK + V), WIDTH)}
    shapes |= {"position_bias": (2 * MAX_LEN - 1,), "time_bias": (9,)} if bias else {}
    inputs = {name: torch.randn(shape, generator=generator).to(dtype) / 2 for name, shape in shapes.items()}
    if bias:
        inputs["timestamps"] = torch.randint(0, 60, (sum(LENGTHS),), generator=generator).cumsum(0)
    return inputs


def in_one(dropout_p: float, seed: torch.Tensor):
    def call(x, weight, position_bias=None, time_bias=None, timestamps=None):
        tensors = (x, weight, offsets_of(LENGTHS).to(x.device), position_bias, time_bias, timestamps, seed.to(x.device))
        return hstu_block(*tensors, HEADS, QK, V, MAX_LEN, 1e-6, dropout_p)[0]

    return call


def one_after_the_other(dropout_p: float, seed: torch.Tensor):
    def call(x, weight, **tables):
        u, v, q, k = linear_silu(x, weight).split([HEADS * V] * 2 + [HEADS * QK] * 2, dim=1)
        q, k, v = (part.unflatten(1, (HEADS, -1)) for part in (q, k, v))
        attended = hstu_attention(q, k, v, offsets_of(LENGTHS), max_len=MAX_LEN, **tables)
        return norm_gate(attended.flatten(1), u, 1e-6, dropout_p, seed)

    return call


@pytest.mark.parametrize("dropout_p", [0.0, 0.25])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_as_its_operators(dtype, bias, dropout_p):
    if bias and dropout_p:
        pytest.skip("each by itself")
    inputs, seed = make_inputs(bias, dtype), torch.tensor(12)
    with use_backend("reference"):
        doubled = {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
        expected = outputs_and_gradients(one_after_the_other(dropout_p, seed), doubled)
    got = outputs_and_gradients(in_one(dropout_p, seed), {name: x.to(DEVICE) for name, x in inputs.items()})
    assert_close({name: x.cpu() for name, x in got.items()}, expected, TOLERANCES[dtype])
