"""HSTU attention by the C++ kernels (csrc/cpu/hstu_attention.cpp, hstu_limited.cpp): fp32 on CPU, both passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..native import call, empty_like, uninitialised
from .buckets import MOST_BUCKETS, bucket_starts

if TYPE_CHECKING:
    from .eager import Settings


def _tables(settings: Settings) -> tuple[Tensor | None, ...]:
    time_bias, starts = settings.time_bias, None
    if time_bias is not None:
        time_bias = time_bias[:MOST_BUCKETS]  # no gap reaches the others
        starts = torch.tensor(bucket_starts(len(time_bias)), dtype=torch.int64)
    return settings.offsets, settings.position_bias, time_bias, starts, settings.timestamps


def _call(name: str, arrays: tuple[Tensor, ...], settings: Settings) -> None:
    """Runs the pass `name` ("forward", "backward"): without limits by kernels that know of none."""
    max_len, scale, limits = settings.max_len, settings.scale, settings.limits
    if limits.are_none:
        call(f"hstu_attention_{name}", *arrays, *_tables(settings), max_len, scale)
    else:
        num_targets, *numbers = limits
        call(f"hstu_limited_{name}", *arrays, *_tables(settings), num_targets, max_len, scale, *numbers)


def forward(q: Tensor, k: Tensor, v: Tensor, settings: Settings) -> Tensor:
    """The operator's output (T, H, Dv); arguments as the operator has checked them."""
    out = uninitialised(v)
    _call("forward", (out, q, k, v), settings)
    return out


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, settings: Settings
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, position_bias and time_bias (the last two empty where there is no table)."""
    dq, dk, dv = empty_like(q, k, v)
    position, time = (
        q.new_zeros(0 if table is None else len(table)) for table in (settings.position_bias, settings.time_bias)
    )
    _call("backward", (dq, dk, dv, position, time[:MOST_BUCKETS], grad, q, k, v), settings)
    return dq, dk, dv, position, time
