"""The rotation in plain torch: traceable, fp32 inside for bf16 and fp16."""

from __future__ import annotations

import torch
from torch import Tensor


def rope(q: Tensor, k: Tensor, offsets: Tensor, base: float, angles: object = None) -> tuple[Tensor, Tensor]:
    token = torch.arange(q.shape[0], device=q.device)
    return rope_at(q, k, token - offsets[torch.searchsorted(offsets, token, right=True) - 1], base)


def rope_at(q: Tensor, k: Tensor, position: Tensor, base: float) -> tuple[Tensor, Tensor]:
    """`rope` at given positions int64 (T,)."""
    half = q.shape[-1] // 2
    wide = torch.promote_types(q.dtype, torch.float32)
    frequencies = base ** (-torch.arange(half, dtype=wide, device=q.device) / half)
    angles = (position[:, None] * frequencies)[:, None, :]
    cos, sin = angles.cos(), angles.sin()

    def rotate(x: Tensor) -> Tensor:
        first, second = x.to(wide).split(half, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)

    return rotate(q), rotate(k)
