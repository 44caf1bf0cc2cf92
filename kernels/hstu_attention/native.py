"""HSTU attention by the C++ kernels (csrc/cpu/hstu_attention.cpp, hstu_limited.cpp): fp32 on CPU, both passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..native import call
from ..results import empty_like, uninitialised
from .buckets import MOST_BUCKETS, bucket_starts
from .settings import Settings


def _arguments(settings: Settings) -> tuple[Any, ...]:
    """The settings in the functions' order: with the starts of the time table's buckets behind it."""
    time_bias, starts = settings.time_bias, None
    if time_bias is not None:
        time_bias = time_bias[:MOST_BUCKETS]  # no gap reaches the others
        starts = torch.tensor(bucket_starts(len(time_bias)), dtype=torch.int64)
    offsets, max_len, scale, position_bias, _, *others = settings
    return offsets, max_len, scale, position_bias, time_bias, starts, *others


def forward(q: Tensor, k: Tensor, v: Tensor, *settings: Any) -> Tensor:
    out = uninitialised(v)
    call("hstu_attention_forward", out, q, k, v, *_arguments(Settings(*settings)))
    return out


def backward(grad_y: Tensor, q: Tensor, k: Tensor, v: Tensor, *settings: Any) -> tuple[Tensor, ...]:
    """The gradients of the two tables are empty where there is no table."""
    given = Settings(*settings)
    of_rows = empty_like(q, k, v)
    position, time = (
        q.new_zeros(0 if table is None else len(table)) for table in (given.position_bias, given.time_bias)
    )
    written = (*of_rows, position, time[:MOST_BUCKETS])
    call("hstu_attention_backward", *written, grad_y.contiguous(), q, k, v, *_arguments(given))
    return *of_rows, position, time
