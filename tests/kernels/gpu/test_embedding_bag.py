"""Embedding bags: bags and runs of equal ids around the chunks' bounds, widths, both gradients, every dtype."""

from __future__ import annotations

import pytest
import torch

from uqabench.kernels import embedding_bag_mean

from ..cases import offsets_of
from ..conftest import TOLERANCES, assert_close, reference_results
from .conftest import DEVICE, gpu_results

ROWS = 7
LENGTHS = [(), (0,), (1,), (0, 3, 0), (4, 5, 8, 9), (35, 2)]


def check(ids, lengths, dtype=torch.float32, width=5, sparse=False):
    table = torch.randn(ROWS, width, generator=torch.Generator().manual_seed(1)).to(dtype)
    offsets = offsets_of(lengths)

    def call(table):
        device = table.device
        return embedding_bag_mean(table, ids.to(device), offsets.to(device), sparse=sparse)

    tolerance = TOLERANCES.get(dtype, 5e-3)
    assert_close(gpu_results("triton", call, {"table": table}), reference_results(call, {"table": table}), tolerance)


def random_ids(count):
    return torch.randint(ROWS - 1, (count,), generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_lengths(lengths, sparse):
    check(random_ids(sum(lengths)), lengths, sparse=sparse)


@pytest.mark.parametrize("counts", [(32, 32), (33, 31), (31, 33), (1, 64, 1), (97,), (20, 70, 0, 8)], ids=str)
def test_runs_of_one_id(counts):
    """Runs that end with a chunk, go over one bound or several, or begin with a chunk."""
    ids = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    ids = ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(2))]
    check(ids, (len(ids) - 6, 0, 6))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_other_dtypes(dtype, sparse):
    check(random_ids(12), (5, 0, 7), dtype, 19, sparse)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("width", [0, 1, 128, 600])
def test_widths(width, sparse):
    check(random_ids(9), (5, 0, 4), width=width, sparse=sparse)


def test_the_order_is_that_of_occurrence_and_the_bits_are_the_same_again():
    """In fp32, 1e8 + 1 - 1e8 is 0 in this order and 1 in another."""
    ids, offsets = torch.zeros(3, dtype=torch.int64, device=DEVICE), offsets_of((1, 1, 1)).to(DEVICE)
    weights = torch.tensor([[1e8], [1.0], [-1e8]], device=DEVICE)

    def call(table):
        return (embedding_bag_mean(table, ids, offsets) * weights).sum()

    results = [gpu_results("triton", call, {"table": torch.ones(2, 1)}) for _ in range(2)]
    assert results[0]["gradient of table"].flatten().tolist() == [0.0, 0.0]
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


@pytest.mark.parametrize("sparse", [False, True])
def test_it_is_registered_correctly(sparse):
    table = torch.randn(ROWS, 3, device=DEVICE).requires_grad_()
    arguments = (table, random_ids(3).to(DEVICE), offsets_of((1, 2)).to(DEVICE), sparse, "triton")
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.uqabench.embedding_bag_mean, arguments, test_utils=tests)
