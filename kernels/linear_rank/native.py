"""Ranks by counting in C++ (csrc/cpu/linear_rank.cpp): fp32 on CPU, no score is ever stored."""

from __future__ import annotations

import torch
from torch import Tensor

from ..native import call, native_op


@native_op("linear_rank")
def linear_rank(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Ranks int64 (T,); arguments as the operator has checked them."""
    rank = torch.empty_like(target)
    call("linear_rank", rank, hidden, weight, target)
    return rank


@linear_rank.register_fake
def _(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return torch.empty_like(target)
