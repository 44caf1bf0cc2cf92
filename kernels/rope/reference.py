"""The specification, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def rope(q: Tensor, k: Tensor, offsets: Tensor, base: float, angles: object = None) -> tuple[Tensor, Tensor]:
    half = q.shape[-1] // 2
    frequencies = base ** (-torch.arange(half, dtype=torch.float64, device=q.device) / half)
    lengths = offsets.diff().tolist()
    positions = torch.cat([torch.arange(length, device=q.device) for length in [0, *lengths]])
    angles = (positions[:, None] * frequencies)[:, None, :]

    def rotate(x: Tensor) -> Tensor:
        first, second = x.double().split(half, dim=-1)
        pairs = (first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin())
        return torch.cat(pairs, dim=-1).to(x.dtype)

    return rotate(q), rotate(k)
