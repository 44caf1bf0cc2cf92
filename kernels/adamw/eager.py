"""Plain torch on the touched rows; arithmetic in fp32, or fp64 where the table is."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def sparse_adamw_(
    table: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    last_step: Tensor,
    last_decay: Tensor,
    ids: Tensor,
    grads: Tensor,
    step: int,
    decayed: float,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    dtype = torch.promote_types(table.dtype, torch.float32)
    rows, g = _sum_by_row(ids, grads.to(dtype))
    steps = step - last_step.index_select(0, rows)
    m, v = (x.index_select(0, rows).to(dtype) for x in (exp_avg, exp_avg_sq))
    m = m * _powers(beta1, steps, dtype) + g * (1 - beta1)
    v = v * _powers(beta2, steps, dtype) + g * g * (1 - beta2)
    decay = (decayed - last_decay.index_select(0, rows)).exp().to(dtype).unsqueeze(-1)
    p = table.index_select(0, rows).to(dtype) * decay
    p -= m * (lr / (1 - beta1**step)) / (v.sqrt() / (1 - beta2**step) ** 0.5 + eps)
    for x, updated in ((table, p), (exp_avg, m), (exp_avg_sq, v)):
        x.index_copy_(0, rows, updated.to(x.dtype))
    last_step.index_fill_(0, rows, step)
    last_decay.index_fill_(0, rows, decayed)


def _sum_by_row(ids: Tensor, grads: Tensor) -> tuple[Tensor, Tensor]:
    """Each distinct id once, in increasing order, and the sum of its gradients in the order of occurrence."""
    sorted_ids, order = ids.sort(stable=True)
    rows, counts = sorted_ids.unique_consecutive(return_counts=True)
    grads = grads.index_select(0, order)
    if len(rows) < len(ids):  # index_add_ would sum in any order on CUDA
        grads = torch.segment_reduce(grads, "sum", lengths=counts, unsafe=True)
    return rows, grads


def catch_up_(
    table: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    last_step: Tensor,
    last_decay: Tensor,
    step: int,
    log_decay: float,
    beta1: float,
    beta2: float,
) -> None:
    """`flush_sparse_adamw_`, arguments checked."""
    dtype = torch.promote_types(table.dtype, torch.float32)
    steps = step - last_step
    table.mul_((log_decay - last_decay).exp().to(dtype).unsqueeze(-1))
    exp_avg.mul_(_powers(beta1, steps, dtype))
    exp_avg_sq.mul_(_powers(beta2, steps, dtype))
    last_step.fill_(step)
    last_decay.fill_(log_decay)


def _powers(beta: float, steps: Tensor, dtype: torch.dtype) -> Tensor:
    """beta**steps as a column."""
    return torch.pow(beta, steps.double()).to(dtype).unsqueeze(-1)
