"""The specifications, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None) -> Tensor | tuple[Tensor, Tensor]:
    total = x if residual is None else x + residual  # rounded to x's dtype, as it is handed back
    wide = total.double()
    y = (wide / (wide.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()).to(x.dtype)
    return y if residual is None else (y, total)


def rope(q: Tensor, k: Tensor, offsets: Tensor, base: float) -> tuple[Tensor, Tensor]:
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


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    wide = gate.double()
    return (wide * wide.sigmoid() * up.double()).to(gate.dtype)
