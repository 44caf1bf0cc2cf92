"""Counts the items that rank before each token's target, over slices of the catalogue.

A program owns ROWS tokens, whose vectors stay in shared memory, and a slice of the catalogue, over which it walks
COLUMNS items at a time; registers hold ROWS x COLUMNS scores and a counter for each token. The slices' integer counts
are added afterwards. The target's own score is computed by the same matrix instruction in the same order of summation,
from a tile that holds the tokens' targets instead of catalogue items and of which the diagonal is kept: equal rows tie
exactly.

An item ranks before the target if its score is above, or equal with a smaller index. In a tile whose items all come
before the target, "equal or above" is "above the next smaller float"; in one whose items all come after it, just
"above". So one comparison and one addition for each score suffice. Tokens are taken in the order of their targets, and
only between the first and the last target of its ROWS tokens (1/64 of the catalogue at T = 8,192) must a program
compare the indices too. docs/gpu.md says what bounds it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tiles import block_of
from ..triton_catalogue import EXACT_TILE, add_product, slices
from ..triton_tools import architecture, on_device_of, tuned

_BLOCK = 128  # slices are whole tiles of any configuration
_ROWS = 128  # tokens of the largest tile, for which the number of slices is chosen


def _config(rows: int, columns: int, warps: int, stages: int) -> triton.Config:
    return triton.Config({"ROWS": rows, "COLUMNS": columns}, num_warps=warps, num_stages=stages)


def configs(block_d: int, dtype: torch.dtype, arch: int) -> list[triton.Config]:
    """What the autotuner chooses from, for vectors of block_d on sm_`arch`."""
    if dtype == torch.float32:
        return [_config(*EXACT_TILE, 4, 1)]
    return {
        128: [_config(128, 128, 8, 3), _config(128, 64, 8, 3), _config(64, 128, 4, 2)],
        256: [_config(128, 64, 8, 2), _config(128, 64, 4, 2), _config(64, 64, 4, 2)],
        512: [_config(64, 32, 8, 2) if arch >= 90 else _config(32, 64, 8, 2)],  # the other spills
    }[max(block_d, 128)]


def count_in_front(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Ranks int64 (T,)."""
    tokens, width = hidden.shape
    items, block_d = len(weight), block_of(width)
    count, length = slices(items, _BLOCK, -(-max(1, tokens) // _ROWS), weight)
    counts = target.new_empty(count, tokens, dtype=torch.int32)
    wanted, order = target.sort(stable=True)
    if tokens:
        with on_device_of(weight):
            kernel = _kernel(block_d, weight.dtype, architecture(weight.device))
            kernel[lambda meta: (triton.cdiv(tokens, meta["ROWS"]), count)](
                hidden, weight, wanted, order, counts,
                tokens, items, length, width, hidden.stride(0), weight.stride(0), tokens.bit_length(),
                BLOCK_D=block_d,
            )  # fmt: skip
    return counts.sum(0).clamp_(max=items - 1)  # a target whose score is NaN has counted itself


@cache
def _kernel(block_d: int, dtype: torch.dtype, arch: int) -> Callable[..., Any]:
    return tuned(configs(block_d, dtype, arch), key=["size"])(count_slice)


@triton.jit
def count_slice(
    hidden, weight, wanted, order, counts, tokens, items, length, width, hidden_row, weight_row, size,
    BLOCK_D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """`size` is the class of problems for which the autotuner chooses a configuration."""
    first = tl.program_id(0) * ROWS
    indices = first + tl.arange(0, ROWS)
    is_token = indices < tokens
    token = tl.load(order + indices, mask=is_token, other=0)
    target = tl.load(wanted + indices, mask=is_token, other=0).to(tl.int32)
    depth = tl.arange(0, BLOCK_D)
    mask = is_token[:, None] & (depth < width)[None, :]
    states = tl.load(hidden + (token * hidden_row)[:, None] + depth[None, :], mask=mask, other=0.0)
    own = tl.zeros((ROWS,), tl.float32)
    for piece in tl.static_range((ROWS + COLUMNS - 1) // COLUMNS):
        own += _own_scores(
            states, weight, wanted, first, piece * COLUMNS, tokens, width, weight_row, BLOCK_D, ROWS, COLUMNS
        )
    below = _next_below(own)

    # The slice's whole tiles [low, high), of which [begin, end) lie among targets; then what is left of a tile.
    low = tl.program_id(1) * length // COLUMNS
    stop = tl.minimum((tl.program_id(1) + 1) * length, items)
    high = stop // COLUMNS
    begin = tl.load(wanted + first).to(tl.int32) // COLUMNS
    end = tl.load(wanted + tl.minimum(first + ROWS, tokens) - 1).to(tl.int32) // COLUMNS + 1
    begin = tl.minimum(tl.maximum(begin, low), high)
    end = tl.minimum(tl.maximum(end, begin), high)
    columns = tl.arange(0, COLUMNS)
    in_front = tl.zeros((ROWS,), tl.int32)
    for i in range(low, high - (end - begin)):
        start = tl.where(i < begin, i, i + (end - begin)) * COLUMNS
        scores = _scores(states, weight, start, items, width, weight_row, False, BLOCK_D, ROWS, COLUMNS)
        bound = tl.where(i < begin, below, own)
        in_front += tl.sum(_is_above(scores, bound[:, None]).to(tl.int32), 1)
    for i in range(begin, end + tl.where(high * COLUMNS < stop, 1, 0)):
        start = tl.where(i < end, i, high) * COLUMNS
        scores = _scores(states, weight, start, items, width, weight_row, True, BLOCK_D, ROWS, COLUMNS)
        item = start + columns
        is_tied = (scores == own[:, None]) & (item[None, :] < target[:, None])
        is_counted = (_is_above(scores, own[:, None]) | is_tied) & (item < items)[None, :]
        in_front += tl.sum(is_counted.to(tl.int32), 1)
    tl.store(counts + tl.cast(tl.program_id(1), tl.int64) * tokens + token, in_front, mask=is_token)


@triton.jit
def _scores(
    states, weight, start, items, width, weight_row,
    MAY_END: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Scores (ROWS, COLUMNS) of the items from `start` on, which reach beyond the catalogue only if MAY_END."""
    columns = tl.arange(0, COLUMNS)
    depth = tl.arange(0, BLOCK_D)
    mask = (depth < width)[None, :]
    if MAY_END:
        mask = mask & (start + columns < items)[:, None]
    tile = weight + start * tl.cast(weight_row, tl.int64) + (columns * weight_row)[:, None] + depth[None, :]
    row = tl.load(tile, mask=mask, other=0.0)
    return add_product(states, tl.trans(row), tl.zeros((ROWS, COLUMNS), tl.float32))


@triton.jit
def _own_scores(
    states, weight, wanted, first, offset, tokens, width, weight_row,
    BLOCK_D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The targets' scores (ROWS,) of the tokens from `offset` on, else 0, by the same product as the catalogue's."""
    index = offset + tl.arange(0, COLUMNS)
    is_token = (index < ROWS) & (first + index < tokens)
    item = tl.load(wanted + first + index, mask=is_token, other=0).to(tl.int64)
    depth = tl.arange(0, BLOCK_D)
    tile = weight + (item * weight_row)[:, None] + depth[None, :]
    row = tl.load(tile, mask=is_token[:, None] & (depth < width)[None, :], other=0.0)
    scores = add_product(states, tl.trans(row), tl.zeros((ROWS, COLUMNS), tl.float32))
    return tl.sum(tl.where(tl.arange(0, ROWS)[:, None] == index[None, :], scores, 0.0), 1)


@triton.jit
def _is_above(score, bound):
    """True for NaN on either side."""
    return (score <= bound) == 0


@triton.jit
def _next_below(x):
    """The next smaller float; NaN, which all scores are above, of NaN and -inf."""
    bits = x.to(tl.int32, bitcast=True)
    bits = tl.where(x > 0, bits - 1, tl.where(x == 0, -0x7FFFFFFF, bits + 1))
    return tl.where(x == x, bits.to(tl.float32, bitcast=True), x)
