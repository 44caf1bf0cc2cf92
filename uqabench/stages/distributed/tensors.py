"""Differentiable exchanges of rows between processes.

A process's loss is its share of the step's, times the number of processes: gradients that the processes average, as
DistributedDataParallel and FSDP do, are then those of the whole step.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather_rows(x: Tensor, counts: list[int]) -> Tensor:
    """Rows (n, …) of every process, one after the other: (sum(counts), …). counts: n of each process.

    The gradient of a row is the sum of what all processes computed for it.
    """
    return _GatherRows.apply(x, counts)


def exchange_rows(x: Tensor, given: list[int], taken: list[int]) -> Tensor:
    """Send rows to every process: `given` to each, in the order of x (sum(given), …); returns (sum(taken), …), the rows
    that each process sent here. The gradient goes the way back."""
    return _ExchangeRows.apply(x, given, taken)


def exchange_counts(given: list[int], device: torch.device) -> list[int]:
    """How many rows each process has for this one, when it has `given` for each."""
    sent = torch.tensor(given, device=device)
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent)
    return received.tolist()


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of every process's x, in place and without a gradient."""
    dist.all_reduce(x)
    return x


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        # Blocks of one size, because gloo gathers nothing else.
        block = x.new_zeros(max(counts), *x.shape[1:])
        block[: len(x)] = x
        blocks = [torch.empty_like(block) for _ in counts]
        dist.all_gather(blocks, block)
        return torch.cat([part[:count] for part, count in zip(blocks, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return sum_of_parts(gradient, ctx.counts), None


class _ExchangeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, given: list[int], taken: list[int]) -> Tensor:
        ctx.given, ctx.taken = given, taken
        return _exchanged(x, given, taken)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _exchanged(gradient, ctx.taken, ctx.given), None, None


def _exchanged(x: Tensor, given: list[int], taken: list[int]) -> Tensor:
    out = x.new_empty(sum(taken), *x.shape[1:])
    dist.all_to_all_single(out, x.contiguous(), taken, given)
    return out


def sum_of_parts(x: Tensor, counts: list[int]) -> Tensor:
    """This process's part (n, …) of the sum of every process's x (sum(counts), …), summed in the order of processes."""
    mine = counts[dist.get_rank()]
    parts = _exchanged(x, counts, [mine] * len(counts))
    return parts.unflatten(0, (len(counts), mine)).sum(0)
