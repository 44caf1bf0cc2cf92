"""What Triton kernels that walk over a catalogue share: the product of two tiles, and how the catalogue is sliced."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .triton_tools import INTERPRETED, programs

EXACT_TILE = (64, 64) if INTERPRETED else (16, 32)
"""Rows and columns of fp32 tiles, which are multiplied outside of tensor cores from registers: small. Interpreted, an
operation takes 0.1 ms whatever its size: large."""

_INTERPRETED = tl.constexpr(INTERPRETED)
_ENOUGH_BUSY = 0.94


def slices(items: int, block: int, row_tiles: int, x: Tensor) -> tuple[int, int]:
    """Into how many slices of how many items (whole blocks) each of `row_tiles` tiles walks over the catalogue.

    All programs take equally long, so that only the last wave over the multiprocessors may leave some idle. The result
    is the fewest slices, hence the smallest partial results, that keep the multiprocessors busy for 94 % of the time.
    """
    blocks, slots = -(-items // block), programs(x)

    def busy(count: int) -> float:
        tiles = row_tiles * count
        return tiles / (-(-tiles // slots) * slots)

    choices = range(1, min(blocks, slots) + 1)
    count = next((n for n in choices if busy(n) >= _ENOUGH_BUSY), max(choices, key=busy))
    length = -(-blocks // count)
    return -(-blocks // length), length * block


@triton.jit
def add_product(a, b, acc):
    """acc + a @ b in fp32: bf16 operands on tensor cores, fp32 ones in full precision."""
    if _INTERPRETED:  # the interpreter's products take bf16 for integers
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    return tl.dot(a, b, acc, input_precision="ieee")
