"""What linear_rank's backends have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from ..operator import SINGLE, SINGLE_AND_BF16, Kernel, declare
from . import eager, reference

_WIDEST = {torch.bfloat16: 512, torch.float32: 128}
"""Vectors that "triton" takes (fp32 tiles are multiplied from registers); wider ones are left to plain torch."""


def outputs(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Ranks int64 (T,)."""
    return torch.empty_like(target)


_KERNEL = Kernel("linear_rank", __package__, outputs)


def _run(backend: str, hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    if backend == "triton" and hidden.shape[1] > _WIDEST[hidden.dtype]:
        return eager.linear_rank(hidden, weight, target)
    return _KERNEL(backend, hidden, weight, target)


LINEAR_RANK = declare(
    "linear_rank",
    _run,
    {"native": SINGLE, "triton": SINGLE_AND_BF16},
    reference=reference.linear_rank,
    eager=eager.linear_rank,
)
