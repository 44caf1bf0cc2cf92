"""What processes compute together, against one process's operators over all their rows: ragged, empty, few items."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding
from torch.testing import assert_close

from uqabench.kernels import info_nce, use_backend
from uqabench.stages.distributed.catalogue import SharedTable, catalogue_cross_entropy, gathered_info_nce
from uqabench.stages.distributed.data_parallel import mesh_of
from uqabench.stages.distributed.tensors import gather_rows

WIDTH = 5
CASES = [(11, 4), (11, 0), (2, 3), (1, 5), (40, 9)]
"""Items, and queries of the last process; process r of the others has r + 3."""


def check() -> None:
    """Every case; all processes draw the same numbers and each looks at its own part."""
    for case, (items, last) in enumerate(CASES):
        generator = torch.Generator().manual_seed(case)
        world, rank = dist.get_world_size(), dist.get_rank()
        counts = [r + 3 for r in range(world - 1)] + [last]
        table = torch.randn(items, WIDTH, generator=generator)
        queries = torch.randn(sum(counts), WIDTH, generator=generator)
        targets = torch.randint(items, (sum(counts),), generator=generator)
        log_q = torch.randn(sum(counts), generator=generator)
        own = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        shared = SharedTable(nn.Embedding.from_pretrained(table, freeze=False), mesh_of(table.device))
        _check_catalogue(shared, table, queries, targets, counts, own)
        _check_info_nce(shared, table, queries, targets, log_q, counts, own)


def _losses(share: Tensor) -> Tensor:
    """The sum of all processes' shares."""
    total = share.detach().clone()
    dist.all_reduce(total)
    return total


def _check_catalogue(
    shared: SharedTable, table: Tensor, queries: Tensor, targets: Tensor, counts: list[int], own: slice
) -> None:
    whole, rows = queries.clone().requires_grad_(), table.clone().requires_grad_()
    expected = cross_entropy(whole @ rows.T, targets)
    expected.backward()
    mine = queries[own].clone().requires_grad_()
    share = catalogue_cross_entropy(mine, shared, targets[own], counts)
    assert_close(_losses(share), expected.detach())
    (share * dist.get_world_size()).backward()
    assert_close(mine.grad / dist.get_world_size(), whole.grad[own])
    assert_close(shared.weight.grad.full_tensor(), rows.grad)
    shared.weight.grad = None
    with torch.no_grad():
        assert_close(_losses(catalogue_cross_entropy(queries[own], shared, targets[own], counts)), expected.detach())


def _check_info_nce(
    shared: SharedTable,
    table: Tensor,
    queries: Tensor,
    targets: Tensor,
    log_q: Tensor,
    counts: list[int],
    own: slice,
) -> None:
    whole, rows = queries.clone().requires_grad_(), table.clone().requires_grad_()
    with use_backend("reference"):
        expected = info_nce(whole, embedding(targets, rows), targets, log_q, 0.3)
    expected.backward()
    mine = queries[own].clone().requires_grad_()
    positives = shared(targets[own])
    assert torch.equal(positives, table[targets[own]])
    assert torch.equal(gather_rows(positives, counts), table[targets])
    share = gathered_info_nce(mine, positives, targets[own], log_q[own], 0.3, counts)
    assert_close(_losses(share), expected.detach())
    (share * dist.get_world_size()).backward()
    assert_close(mine.grad / dist.get_world_size(), whole.grad[own], rtol=1e-4, atol=1e-5)
    assert_close(shared.weight.grad.full_tensor(), rows.grad, rtol=1e-4, atol=1e-5)
    shared.weight.grad = None
