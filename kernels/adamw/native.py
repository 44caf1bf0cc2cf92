"""One pass over the touched rows in C++ (csrc/cpu/adamw.cpp): fp32 on CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from ..native import call


@torch.library.custom_op(
    "uqabench::sparse_adamw", mutates_args=("table", "exp_avg", "exp_avg_sq", "last_step", "last_decay")
)
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
    """One step in place; arguments as the operator has checked them."""
    tensors = (table, exp_avg, exp_avg_sq, last_step, last_decay, ids, grads)
    call("sparse_adamw", *tensors, step=step, decayed=decayed, lr=lr, beta1=beta1, beta2=beta2, eps=eps)


@sparse_adamw_.register_fake
def _(*_arguments: object) -> None:
    return None
