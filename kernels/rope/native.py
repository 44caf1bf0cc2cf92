"""rope by the C++ kernel (csrc/cpu/rope.cpp): fp32 and bf16 on CPU."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..checks import host_longest
from ..native import call
from ..rows import dense_rows
from .operator import outputs


def forward(
    q: Tensor, k: Tensor, offsets: Tensor, base: float, is_inverse: bool, *angles: Tensor | None
) -> tuple[Tensor, Tensor]:
    """q and k rotated by the angles of their positions, or back; a table of its own serves every batch."""
    table = _cosines_and_sines(1 << max(host_longest(offsets) - 1, 0).bit_length(), q.shape[-1], base)
    rotated = outputs(q, k, offsets, base, is_inverse, *angles)
    call("rope", *rotated, dense_rows(q), dense_rows(k), table, offsets, is_inverse)
    return rotated


@lru_cache(maxsize=8)  # 8 tables of positions * D floats, 256 KiB each for 1,024 positions of 64
def _cosines_and_sines(positions: int, width: int, base: float) -> Tensor:
    """The cosines, then the sines, of each position's width / 2 angles: (positions, width) float32."""
    steps = torch.arange(max(positions, width // 2), dtype=torch.float64, device="cpu")
    frequencies = base ** (-2 / width * steps[: width // 2])
    angles = steps[:positions, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=1).float()
