"""The specification, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def adamw(
    table: Tensor,
    grads: Tensor,
    is_touched: Tensor,
    lrs: list[float],
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """A whole training by brute force: every row goes through every step, touched or not.

    grads (S, V, d), is_touched bool (S, V), lrs: S learning rates. Returns the table and both moments, all (V, d)
    float64, as they are after S steps and a flush.
    """
    p, m, v = table.double().clone(), torch.zeros_like(table).double(), torch.zeros_like(table).double()
    for t, (step_grads, touched, lr) in enumerate(zip(grads.double(), is_touched.tolist(), lrs, strict=True), start=1):
        for row in range(len(table)):
            g = step_grads[row] if touched[row] else torch.zeros_like(p[row])
            p[row] *= 1 - lr * weight_decay
            m[row] = betas[0] * m[row] + (1 - betas[0]) * g
            v[row] = betas[1] * v[row] + (1 - betas[1]) * g * g
            if touched[row]:  # a row that is not touched does not move along its momentum
                p[row] -= lr * (m[row] / (1 - betas[0] ** t)) / ((v[row] / (1 - betas[1] ** t)).sqrt() + eps)
    return p, m, v


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
    """One step, one touched row at a time."""
    for row in set(ids.tolist()):
        g = grads[ids == row].double().sum(0)
        steps = step - int(last_step[row])
        m = beta1**steps * exp_avg[row].double() + (1 - beta1) * g
        v = beta2**steps * exp_avg_sq[row].double() + (1 - beta2) * g * g
        p = table[row].double() * math.exp(decayed - float(last_decay[row]))
        table[row] = p - lr * (m / (1 - beta1**step)) / ((v / (1 - beta2**step)).sqrt() + eps)
        exp_avg[row], exp_avg_sq[row], last_step[row], last_decay[row] = m, v, step, decayed
