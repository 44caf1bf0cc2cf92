"""Torch's own norm."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, residual: Tensor | None, dtype: torch.dtype
) -> Tensor | tuple[Tensor, Tensor]:
    total = x if residual is None else x + residual
    y = functional.rms_norm(total, total.shape[-1:], weight, eps).to(dtype)
    return y if residual is None else (y, total)
