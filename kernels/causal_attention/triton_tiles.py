"""What the causal attention kernels share: which tile an item of the persistent loop is, and the tiles' sizes."""

from __future__ import annotations

import triton
import triton.language as tl

from ..triton_tools import find_sequence

LOG2_E = tl.constexpr(1.4426950408889634)


def padded(width: int) -> int:
    """The columns that a tile holds of rows of `width` components."""
    return max(16, triton.next_power_of_2(width))


@triton.jit
def snake_item(first):
    """The item of this program in the round whose items begin at `first`: every other round runs backwards.

    Items fall in cost. Dealt out in one direction, the first program would get the dearest of every round.
    """
    programs = tl.num_programs(0)
    is_backwards = (first // programs) % 2 == 1
    return first + tl.where(is_backwards, programs - 1 - tl.program_id(0), tl.program_id(0))


@triton.jit
def find_tile(offsets, order, first_tile, tile, sequences, BLOCK: tl.constexpr, LAST_FIRST: tl.constexpr):
    """First token of the tile's sequence, the sequence's length, and the tile's first place within it."""
    s = find_sequence(first_tile, tile, sequences)
    b = tl.load(order + s)
    start = tl.load(offsets + b)
    length = (tl.load(offsets + b + 1) - start).to(tl.int32)
    part = (tile - tl.load(first_tile + s)).to(tl.int32)
    if LAST_FIRST:
        part = tl.cdiv(length, BLOCK) - 1 - part
    return start, length, part * BLOCK


@triton.jit
def _pointers(base, first, stride, ROWS: tl.constexpr, PADDED: tl.constexpr):
    """int64 to the tile, int32 within it: cheaper by registers than int64 for every row."""
    tile = base + tl.cast(first, tl.int64) * stride
    return tile + (tl.arange(0, ROWS)[:, None] * stride + tl.arange(0, PADDED)[None, :])


@triton.jit
def load_rows(
    base, first, stride, length, ROWS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, MASKED: tl.constexpr
):
    """Rows first .. first + ROWS - 1 of one head of one sequence, zero from `length` on (if MASKED) and in padding."""
    pointers = _pointers(base, first, stride, ROWS, PADDED)
    is_real = tl.arange(0, PADDED)[None, :] < WIDTH
    if MASKED:
        is_row = (first + tl.arange(0, ROWS))[:, None] < length
        if WIDTH == PADDED:
            return tl.load(pointers, mask=is_row, other=0.0)
        return tl.load(pointers, mask=is_row & is_real, other=0.0)
    if WIDTH == PADDED:
        return tl.load(pointers)
    return tl.load(pointers, mask=is_real, other=0.0)


@triton.jit
def store_rows(base, x, first, stride, length, ROWS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Writes the rows below `length` and the columns below WIDTH, in the memory's dtype."""
    is_row = (first + tl.arange(0, ROWS))[:, None] < length
    mask = is_row & (tl.arange(0, PADDED)[None, :] < WIDTH)
    tl.store(_pointers(base, first, stride, ROWS, PADDED), x.to(base.dtype.element_ty), mask=mask)


@triton.jit
def dot(a, b, acc):
    """acc + a @ b in fp32: bf16 and fp16 on tensor cores, fp32 to its full precision."""
    return tl.dot(a, b, acc, input_precision="ieee")
