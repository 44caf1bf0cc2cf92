"""What the causal attention kernels share: which tile a program owns, how its rows move, and its sizes."""

from __future__ import annotations

import triton
import triton.language as tl

from ..triton_tools import find_sequence

LOG2_E = tl.constexpr(1.4426950408889634)


def configs(name: str, choices: list[tuple[int, ...]]) -> list[triton.Config]:
    """Configurations of (rows of the inner tile, warps, stages[, registers a thread]); `name` is the inner tile's."""
    return [triton.Config({name: c[0]}, num_warps=c[1], num_stages=c[2], maxnreg=(*c, None)[3]) for c in choices]


def most_items(tokens: int, sequences: int, heads: int, block: int) -> int:
    """Programs of a launch: at least one for each tile and head, known without the offsets' values.

    There is a program for each item, in the order of the schedule, so that the hardware starts the most expensive
    items first. Programs that loop over items would keep more addresses alive: 207 registers instead of 164 in the
    forward pass at D = 64.
    """
    return (tokens // block + sequences) * heads


@triton.jit
def find_tile(offsets, order, first_tile, tile, sequences, BLOCK: tl.constexpr, LAST_FIRST: tl.constexpr):
    """First token of the tile's sequence, the sequence's length, and the tile's first index within it."""
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
    """An int64 address of the tile and int32 offsets within it, which take fewer registers than int64 for every row."""
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
