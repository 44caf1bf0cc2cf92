"""The item table, shared out over the processes by rows, and what is computed with it where its rows lie.

A process holds V / processes rows, their gradient and their moments. Rows that a batch shows are fetched from their
owners, and the loss over the whole catalogue is computed by all processes, each for its own items and every process's
queries: the softmax's maximum and sum are merged as an online softmax merges blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.nn import functional as F

from uqabench.kernels.linear_cross_entropy.eager import mean_softmax_loss
from uqabench.stages.distributed.tensors import exchange_counts, exchange_rows, gather_rows, sum_of_parts

_CACHE_BYTES, _MOST_BYTES, _ENOUGH_ROWS = 8 << 20, 256 << 20, 128  # of a block of logits: on CPU, on a GPU, at least


class SharedTable(nn.Module):
    """An embedding table (V, d) of which every process has ceil(V / processes) rows, the last ones what is left.

    `weight` is a DTensor: optimiser, clipping and checkpoints treat it as the whole table.
    """

    def __init__(self, table: nn.Embedding, mesh: DeviceMesh) -> None:
        super().__init__()
        weight, world = table.weight.detach(), mesh.size()
        self.num_embeddings, self.embedding_dim = weight.shape
        self.rows_each = -(-len(weight) // world)
        self.first = min(len(weight), mesh.get_local_rank() * self.rows_each)
        own = weight[self.first : self.first + self.rows_each].clone()
        shared = DTensor.from_local(own, mesh, [Shard(0)], run_check=False, shape=weight.shape, stride=weight.stride())
        self.weight = nn.Parameter(shared)

    def own_rows(self) -> Tensor:
        """The rows (V_own, d) that lie here. Their gradient is that of the whole step and is not averaged."""
        return self.weight.to_local()

    def forward(self, items: Tensor) -> Tensor:
        """Rows (T, d) of items int64 (T,), wherever they lie. Every process calls it at the same time."""
        world = dist.get_world_size()
        owner = items // self.rows_each
        order = owner.argsort(stable=True)
        given = torch.bincount(owner, minlength=world).tolist()
        taken = exchange_counts(given, items.device)
        asked = exchange_rows(items[order], given, taken) - self.first
        rows = exchange_rows(F.embedding(asked, _averaged(self.own_rows())), taken, given)
        return F.embedding(order.argsort(), rows)


def catalogue_cross_entropy(queries: Tensor, table: SharedTable, targets: Tensor, counts: list[int]) -> Tensor:
    """Cross entropy over the whole catalogue: this process's share, sum over its queries / queries of all.

    queries (n, d), targets int64 (n,): this process's. counts: n of every process. Products are computed in the
    queries' dtype, everything else in float32 at least. The shares of all processes add up to the mean.
    """
    return _CatalogueLoss.apply(queries, table.own_rows(), targets, counts, table.first)


def gathered_info_nce(
    queries: Tensor, positives: Tensor, targets: Tensor, log_q: Tensor, temperature: float, counts: list[int]
) -> Tensor:
    """`kernels.info_nce` among the positives of all processes: this process's share, as above.

    queries, positives (n, d), targets int64 (n,), log_q (n,): this process's. counts: n of every process.
    """
    everybody, ids = gather_rows(positives, counts), gather_rows(targets, counts)
    log_q = gather_rows(log_q.detach(), counts)
    begin = sum(counts[: dist.get_rank()])
    own = torch.arange(begin, begin + len(queries), device=queries.device)
    others = torch.arange(len(ids), device=ids.device)

    def adjust(logits: Tensor, rows: slice) -> None:
        logits.sub_(log_q)
        logits.masked_fill_((targets[rows, None] == ids) & (own[rows, None] != others), -torch.inf)

    # The operator itself takes as many queries as positives, the first the owner of the first.
    return mean_softmax_loss(queries / temperature, everybody, own, adjust) * (len(queries) / max(1, sum(counts)))


def _averaged(rows: Tensor) -> Tensor:
    """`rows` whose gradient, a sum over all processes' losses, is divided by their number (see `tensors`)."""
    if rows.requires_grad:
        rows = rows.view_as(rows)
        rows.register_hook(lambda gradient: gradient / dist.get_world_size())
    return rows


class _CatalogueLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, weight: Tensor, targets: Tensor, counts: list[int], first: int) -> Tensor:
        total = max(1, sum(counts))
        everybody = _GatheredQueries(queries, weight.to(queries.dtype), targets, counts, first)
        largest, log_sum, wanted = everybody.statistics()
        losses = largest + log_sum - wanted
        begin = sum(counts[: dist.get_rank()])
        share = losses[begin : begin + len(queries)].sum() / total
        if any(ctx.needs_input_grad[:2]):
            g_queries, g_weight = everybody.gradients(largest + log_sum, 1 / total)
            own = sum_of_parts(g_queries, counts).to(queries.dtype)
            ctx.save_for_backward(own, (g_weight / dist.get_world_size()).to(weight.dtype))
        return share

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *(gradient * g for g in ctx.saved_tensors), None, None, None


class _GatheredQueries:
    """The queries of all processes and this process's items: blocks of logits (rows, V_own), made twice."""

    def __init__(self, queries: Tensor, weight: Tensor, targets: Tensor, counts: list[int], first: int) -> None:
        self.queries, self.weight = gather_rows(queries, counts), weight
        own = gather_rows(targets, counts) - first
        self.is_here = (own >= 0) & (own < len(weight))
        self.targets = own.clamp(0, max(0, len(weight) - 1))[:, None]
        self.dtype = torch.promote_types(queries.dtype, torch.float32)

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        row_bytes = max(1, len(self.weight)) * self.dtype.itemsize
        cached = (_CACHE_BYTES if self.queries.is_cpu else _MOST_BYTES) // row_bytes
        size = max(1, min(max(cached, _ENOUGH_ROWS), _MOST_BYTES // row_bytes))
        for start in range(0, len(self.queries), size):
            rows = slice(start, min(start + size, len(self.queries)))
            yield rows, (self.queries[rows] @ self.weight.t()).to(self.dtype)

    def statistics(self) -> tuple[Tensor, Tensor, Tensor]:
        """Over all items of all processes: each query's largest logit, the logarithm of its sum of exponentials less
        that, and its target's logit."""
        largest = self.queries.new_full((len(self.queries),), -torch.inf, dtype=self.dtype)
        sums, wanted = torch.zeros_like(largest), torch.zeros_like(largest)
        if len(self.weight):
            for rows, logits in self._blocks():
                wanted[rows] = logits.gather(1, self.targets[rows]).squeeze(1) * self.is_here[rows]
                largest[rows] = logits.amax(1)
                sums[rows] = logits.sub_(largest[rows, None]).exp_().sum(1)
        over_all = largest.clone()
        dist.all_reduce(over_all, dist.ReduceOp.MAX)
        merged = torch.stack([sums * (largest - over_all).exp(), wanted])
        dist.all_reduce(merged)
        return over_all, merged[0].log(), merged[1]

    def gradients(self, log_sum: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Of the sum of losses times `share`: to all queries, this process's items' part of it, and to its items."""
        g_queries = torch.zeros_like(self.queries, dtype=self.dtype)
        g_weight = torch.zeros_like(self.weight, dtype=self.dtype)
        for rows, logits in self._blocks() if len(self.weight) else ():
            errors = logits.sub_(log_sum[rows, None]).exp_()
            errors.scatter_add_(1, self.targets[rows], -self.is_here[rows, None].to(self.dtype))
            errors = errors.to(self.queries.dtype)
            g_queries[rows] = (errors @ self.weight).to(self.dtype) * share
            g_weight += (errors.t() @ self.queries[rows]).to(self.dtype) * share
        return g_queries, g_weight
