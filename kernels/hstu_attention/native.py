"""HSTU attention by the C++ kernels (csrc/cpu/hstu_attention.cpp): fp32 on CPU, forward and backward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..backend import native_module
from .buckets import MOST_BUCKETS, bucket_starts

if TYPE_CHECKING:
    from .eager import Settings


def _array(x: Tensor | None) -> np.ndarray | None:
    return None if x is None else x.detach().numpy()


def _arguments(settings: Settings) -> dict[str, Any]:
    time_bias = settings.time_bias
    if time_bias is not None:
        time_bias = time_bias[:MOST_BUCKETS]  # no gap reaches the others
    return {
        "offsets": _array(settings.offsets),
        "position_bias": _array(settings.position_bias),
        "time_bias": _array(time_bias),
        "bucket_starts": None if time_bias is None else np.array(bucket_starts(len(time_bias)), dtype=np.int64),
        "timestamps": _array(settings.timestamps),
        "max_len": settings.max_len,
        "scale": settings.scale,
        "threads": torch.get_num_threads(),
    }


def forward(q: Tensor, k: Tensor, v: Tensor, settings: Settings) -> Tensor:
    """The operator's output (T, H, Dv); arguments as the operator has checked them."""
    out = torch.empty_like(v, memory_format=torch.contiguous_format)
    native_module().hstu_attention_forward(_array(out), _array(q), _array(k), _array(v), **_arguments(settings))
    return out


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, settings: Settings
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, position_bias and time_bias (the last two empty where there is no table)."""
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    position, time = (
        q.new_zeros(0 if table is None else len(table)) for table in (settings.position_bias, settings.time_bias)
    )
    native_module().hstu_attention_backward(
        *(_array(x) for x in (dq, dk, dv, position, time[:MOST_BUCKETS], grad, q, k, v)), **_arguments(settings)
    )
    return dq, dk, dv, position, time
