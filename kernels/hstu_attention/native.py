"""HSTU attention by the C++ kernels (csrc/cpu/hstu_attention.cpp, hstu_limited.cpp): fp32 on CPU, both passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..native import call
from ..results import empty_like, uninitialised
from .buckets import MOST_BUCKETS, bucket_starts
from .settings import Settings


def _tables(settings: Settings) -> tuple[Tensor | None, ...]:
    time_bias, starts = settings.time_bias, None
    if time_bias is not None:
        time_bias = time_bias[:MOST_BUCKETS]  # no gap reaches the others
        starts = torch.tensor(bucket_starts(len(time_bias)), dtype=torch.int64)
    return settings.offsets, settings.position_bias, time_bias, starts, settings.timestamps


def _call(name: str, arrays: tuple[Tensor | None, ...], settings: Settings) -> None:
    """Runs the pass `name` ("forward", "backward"): without limits by kernels that know of none."""
    max_len, scale, limits = settings.max_len, settings.scale, settings.limits
    if limits.are_none:
        call(f"hstu_attention_{name}", *arrays, *_tables(settings), max_len, scale)
    else:
        num_targets, *numbers = limits
        call(f"hstu_limited_{name}", *arrays, *_tables(settings), num_targets, max_len, scale, *numbers)


def forward(q: Tensor, k: Tensor, v: Tensor, *settings: Any) -> Tensor:
    out = uninitialised(v)
    _call("forward", (out, q, k, v), Settings(*settings))
    return out


def backward(grad_y: Tensor, q: Tensor, k: Tensor, v: Tensor, *settings: Any) -> tuple[Tensor, ...]:
    """The gradients of the two tables are empty where there is no table."""
    given = Settings(*settings)
    of_rows = empty_like(q, k, v)
    position, time = (
        q.new_zeros(0 if table is None else len(table)) for table in (given.position_bias, given.time_bias)
    )
    _call("backward", (*of_rows, position, time[:MOST_BUCKETS], grad_y.contiguous(), q, k, v), given)
    return *of_rows, position, time
