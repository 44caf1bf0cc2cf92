"""Ranks by counting in C++ (csrc/cpu/linear_rank.cpp): fp32 on CPU, no score is ever stored."""

from __future__ import annotations

from torch import Tensor

from ..native import call
from .operator import outputs


def forward(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    rank = outputs(hidden, weight, target)
    call("linear_rank", rank, hidden, weight, target)
    return rank
