"""Tensors (..., d) as the rows that native kernels take."""

from __future__ import annotations

from torch import Tensor


def dense_rows(x: Tensor) -> Tensor:
    """`x`, copied only if its last dimension is not contiguous (as in the gradient of a sum)."""
    return x if x.stride(-1) == 1 or x.shape[-1] <= 1 else x.contiguous()


def as_rows(x: Tensor) -> Tensor:
    """`x` (..., d), d >= 1, as (rows, d), its last dimension contiguous; a view where the strides allow one."""
    return dense_rows(x if x.ndim == 2 else x.reshape(-1, x.shape[-1]))
