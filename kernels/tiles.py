"""Sizes of tiles, for kernels and for those who make their results without triton."""

from __future__ import annotations


def block_of(width: int) -> int:
    """Columns of a tile that holds rows of `width`: a power of two, at least the 16 that a matrix instruction sums."""
    return max(16, 1 << (int(width) - 1).bit_length())
