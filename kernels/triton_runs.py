"""Sums over equal ids on a GPU, in a fixed order: what gradients of embedding tables and their optimiser share.

The ids are sorted (stably, so that equal ones stay in their order of occurrence) and divided into chunks of CHUNK
indices. A piece is the part of a run of equal ids that lies in one chunk, and a program sums a piece in order. That is
all for a run that lies in one chunk. The sums of a longer run's pieces go to `partials` (fp32, two rows for each chunk:
one for the piece at its beginning, one for a piece that continues in the next chunk), and a program sums them in order.
The launches need no value from the device, and no sum depends on how programs are scheduled.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK = 32


def new_partials(count: int, width: int, device: torch.device) -> Tensor:
    """Uninitialised sums of the pieces of `count` ids."""
    return torch.empty(2 * triton.cdiv(count, CHUNK), width, dtype=torch.float32, device=device)


@triton.jit
def find_piece(sorted_ids, index, count, CHUNK: tl.constexpr):
    """(id, length of the piece that begins at `index`, 0 if none does; whether its run begins and ends with it)."""
    row = tl.load(sorted_ids + index)
    is_first = tl.load(sorted_ids + index - 1, mask=index > 0, other=-1) != row
    within = index % CHUNK
    lanes = tl.arange(0, CHUNK)
    is_in_chunk = (lanes < CHUNK - within) & (index + lanes < count)
    ids = tl.load(sorted_ids + index + lanes, mask=is_in_chunk, other=-1)
    length = tl.sum((ids == row).to(tl.int32), 0)
    end = index + length
    is_last = tl.load(sorted_ids + end, mask=end < count, other=-1) != row
    return row, tl.where(is_first | (within == 0), length, 0), is_first, is_last


@triton.jit
def partial_row(index, CHUNK: tl.constexpr):
    """The row of `partials` for the piece that begins at `index`."""
    return 2 * (index // CHUNK) + tl.where(index % CHUNK == 0, 0, 1)


@triton.jit
def find_long_run(sorted_ids, chunk, count, CHUNK: tl.constexpr):
    """(id, first row of `partials`, last chunk) of the run that begins in `chunk` and continues; last chunk 0: none."""
    next_index = (chunk + 1) * CHUNK
    goes_on = next_index < count
    row = tl.load(sorted_ids + next_index - 1, mask=goes_on, other=-1)
    goes_on = goes_on & (tl.load(sorted_ids + next_index, mask=goes_on, other=-2) == row)
    is_whole = tl.load(sorted_ids + chunk * CHUNK) == row
    before = tl.load(sorted_ids + chunk * CHUNK - 1, mask=is_whole & (chunk > 0), other=-1)
    begins_here = goes_on & (before != row)
    low = chunk + 1  # holds the run at its first index, `high` does not
    high = tl.where(begins_here, tl.cdiv(count, CHUNK), chunk + 2)
    while high - low > 1:
        middle = (low + high) // 2
        is_same = tl.load(sorted_ids + middle * CHUNK) == row
        low = tl.where(is_same, middle, low)
        high = tl.where(is_same, high, middle)
    return row, 2 * chunk + tl.where(is_whole, 0, 1), tl.where(begins_here, low, 0)


@triton.jit
def sum_partials(partials, first_row, chunk, last_chunk, columns, width, UNROLL: tl.constexpr):
    """The sum of a long run over its pieces, in their order, for the given columns."""
    is_column = columns < width
    total = tl.load(partials + first_row.to(tl.int64) * width + columns, mask=is_column, other=0.0)
    for following in range(chunk + 1, last_chunk + 1, UNROLL):
        for u in tl.static_range(UNROLL):
            row = 2 * tl.cast(following + u, tl.int64)
            total += tl.load(
                partials + row * width + columns, mask=is_column & (following + u <= last_chunk), other=0.0
            )
    return total
