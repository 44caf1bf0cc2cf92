"""Dropout by a counter-based generator: which elements are dropped follows from a seed and their indices alone, so that
nothing is kept for the backward pass and every backend drops the same ones.

The generator is Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The element in
column c of row r takes 16 of the 128 bits that counter (c // 8, r, 0, 0) gives with the seed's low and high 32 bits as
the key: word c % 8 // 2, its low half for even c and its high half for odd c. It is dropped if these 16 bits are below
round(65536 p), and otherwise multiplied by the exact inverse of the probability to be kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Ten rounds; every tensor int64 with values from 0 to 2**32 - 1, of shapes that broadcast."""
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        # Products exceed 2**63, but their 64 bits are right; the sign bits that the shift copies are masked.
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b = ((second >> 32) & _WORD) ^ b ^ k0, second & _WORD
        c, d = ((first >> 32) & _WORD) ^ d ^ k1, first & _WORD
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
    return a, b, c, d


def threshold(p: float) -> int:
    """The threshold, of 65,536 values, below which an element is dropped with probability p, 0 <= p < 1."""
    return min(round(p * 65536), 65535)


def scale(p: float) -> float:
    """The factor of an element that is kept."""
    return 65536 / (65536 - threshold(p))


def is_kept(rows: int, width: int, p: float, seed: Tensor) -> Tensor:
    """Bool (rows, width) on the device of `seed`, an int64 scalar."""
    group = torch.arange((width + 7) // 8, device=seed.device)[None, :]
    row = torch.arange(rows, device=seed.device)[:, None]
    zero = torch.zeros_like(row)
    words = philox4x32((group, row, zero, zero), (seed & _WORD, (seed >> 32) & _WORD))
    halves = [half for word in words for half in (word & 0xFFFF, word >> 16)]
    return (torch.stack(halves, dim=-1) >= threshold(p)).flatten(1)[:, :width]


def dropout(x: Tensor, p: float, seed: Tensor) -> Tensor:
    """`x` (..., d) with elements dropped by the rule above; its rows are numbered in order."""
    kept = is_kept(x.numel() // x.shape[-1], x.shape[-1], p, seed).view(x.shape)
    return torch.where(kept, x * scale(p), 0.0)
