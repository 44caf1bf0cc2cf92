"""Uninitialised tensors for what a kernel writes in full."""

from __future__ import annotations

import torch
from torch import Tensor

_empty_like, _CONTIGUOUS = torch.empty_like, torch.contiguous_format


def uninitialised(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A contiguous tensor of x's shape, and of its dtype unless another is given."""
    return _empty_like(x, dtype=dtype, memory_format=_CONTIGUOUS)


def empty_like(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Such a tensor for each of `tensors`."""
    return tuple([_empty_like(x, memory_format=_CONTIGUOUS) for x in tensors])


def empty_where(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Such a tensor for each that is there."""
    return tuple([None if x is None else _empty_like(x, memory_format=_CONTIGUOUS) for x in tensors])


def empty_statistics(x: Tensor, count: int) -> Tensor:
    """For what a norm keeps of its rows: (count, rows) float32."""
    return x.new_empty(count, x.numel() // x.shape[-1], dtype=torch.float32)
