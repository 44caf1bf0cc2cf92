"""rope by a Triton kernel (triton_rotation.py): fp32, bf16 and fp16 on GPU."""

from __future__ import annotations

from functools import lru_cache
from math import pi

import torch
from torch import Tensor

from ..rows import dense_rows
from . import triton_rotation
from .operator import angle_outputs, outputs


def forward(
    q: Tensor, k: Tensor, offsets: Tensor, base: float, is_inverse: bool, positions: Tensor, table: Tensor
) -> tuple[Tensor, Tensor]:
    """q and k rotated by the angles of their positions, or back."""
    rotated = outputs(q, k, offsets, base, is_inverse, positions, table)
    triton_rotation.rotate(*rotated, dense_rows(q), dense_rows(k), positions, table, is_inverse)
    return rotated


def angles(offsets: Tensor, tokens: int, rows: int, width: int, base: float) -> tuple[Tensor, Tensor]:
    """Each token's position, and the cosines and sines of `rows` positions."""
    found = angle_outputs(offsets, tokens, rows, width, base)
    triton_rotation.write_angles(*found, offsets, _steps(width, base, offsets.device))
    return found


@lru_cache(maxsize=16)
def _steps(width: int, base: float, device: torch.device) -> Tensor:
    """(width / 2,) int64: the angle between neighbouring positions for each pair, in turns / 2**64, modulo a turn.

    The integer product with the position is then exact modulo a turn, however large the position.
    """
    pairs = torch.arange(width // 2, dtype=torch.float64)
    turns = base ** (-2 / width * pairs) / (2 * pi)
    return ((turns - turns.round()) * 2.0**63).long().mul(2).to(device)
