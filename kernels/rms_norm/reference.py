"""The specification, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, residual: Tensor | None, dtype: torch.dtype
) -> Tensor | tuple[Tensor, Tensor]:
    total = x if residual is None else x + residual  # rounded to the residual's dtype, as it is handed back
    wide = total.double()
    y = (wide / (wide.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()).to(dtype)
    return y if residual is None else (y, total)
