"""rope by a Triton kernel (triton_rotation.py): fp32, bf16 and fp16 on GPU."""

from __future__ import annotations

from functools import lru_cache
from math import pi

import torch
from torch import Tensor

from ..rows import dense_rows
from . import triton_rotation
from .operator import outputs


def forward(q: Tensor, k: Tensor, offsets: Tensor, base: float, is_inverse: bool) -> tuple[Tensor, Tensor]:
    """q and k rotated by the angles of their positions, or back."""
    rotated = outputs(q, k, offsets, base, is_inverse)
    steps = _steps(q.shape[-1], base, q.device)
    triton_rotation.rotate(*rotated, dense_rows(q), dense_rows(k), offsets, steps, is_inverse)
    return rotated


@lru_cache(maxsize=16)
def _steps(width: int, base: float, device: torch.device) -> Tensor:
    """(width / 2,) int64: the angle between neighbouring positions for each pair, in turns / 2**64, modulo a turn.

    The integer product with the position is then exact modulo a turn, however large the position.
    """
    pairs = torch.arange(width // 2, dtype=torch.float64)
    turns = base ** (-2 / width * pairs) / (2 * pi)
    return ((turns - turns.round()) * 2.0**63).long().mul(2).to(device)
