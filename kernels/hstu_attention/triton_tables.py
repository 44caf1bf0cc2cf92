"""HSTU attention's gradients of the position and time tables: a kernel of its own, which runs only where there is a
table and leaves the registers of the other gradients' kernels alone.

Both tables are shared by the heads, so a program owns a pair of tiles (BLOCK queries x BLOCK keys) and adds the
gradients of the scores of every head in registers. Then it sums them by diagonal, through a skewed reload of the tile
from a scratch array (16 KiB that stay in the L2 cache), and by time bucket, with one masked sum for each bucket between
the tile's least and greatest. Each program adds to tables of its own, in the order of its tiles, and torch adds those:
without atomics the bits are the same at every run on one kind of GPU. docs/gpu.md says what bounds it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tiles import block_of
from ..triton_tools import on_device_of, programs, tuned
from .triton_bias import (
    add_half_bias,
    history_of,
    load_times,
    locate,
    seen_keys,
    sees,
    silu_and_gradient,
    time_bucket,
)
from .triton_launch import UNSPECIALISED, common_arguments

if TYPE_CHECKING:
    from .settings import Settings

# The number of programs that share a tile of queries and take its tiles of keys in turn.
SHARES = 8


@triton.jit
def _add_diagonals(table, scratch, d_scores, rows, columns, zero, size, BLOCK: tl.constexpr):
    """table[zero + i - j] += d_scores of (i, j), for i in `rows` and j in `columns`, which begin at multiples of BLOCK.

    Offsets come from `rows` and `columns`, not from constants: those would be kept in registers from the first tile
    to the last.
    """
    row, column = (rows & (BLOCK - 1))[:, None], (columns & (BLOCK - 1))[None, :]
    tl.debug_barrier()
    tl.store(scratch + (row * BLOCK + column), d_scores)
    tl.debug_barrier()
    # Column c of the skewed tile holds diagonal c where the row is at least c, else diagonal c - BLOCK.
    skewed = tl.load(scratch + (row * BLOCK + ((row - column) & (BLOCK - 1))))
    lower = tl.sum(tl.where(row >= column, skewed, 0.0), 0)
    upper = tl.sum(tl.where(row < column, skewed, 0.0), 0)
    distance = tl.min(rows, 0) - tl.min(columns, 0) + tl.arange(0, BLOCK)
    _add_to_table(table, zero + distance, lower, size)
    _add_to_table(table, zero + distance - BLOCK, upper, size)


@triton.jit
def _add_to_table(table, entries, values, size):
    """table[entries] += values, where an entry exists. The program's own: the barriers order its threads."""
    exists = (entries >= 0) & (entries < size)
    tl.debug_barrier()
    values += tl.load(table + entries, mask=exists, other=0.0)
    tl.debug_barrier()
    tl.store(table + entries, values, mask=exists)


@triton.jit
def _add_buckets(sums, d_scores, buckets, counts, BUCKETS: tl.constexpr):
    """sums (BUCKETS,) plus d_scores by bucket, where `counts`."""
    first = tl.min(tl.min(tl.where(counts, buckets, BUCKETS), 1), 0)
    last = tl.max(tl.max(tl.where(counts, buckets, -1), 1), 0)
    names = tl.arange(0, BUCKETS)
    for bucket in range(first, last + 1):
        total = tl.sum(tl.sum(tl.where(buckets == bucket, d_scores, 0.0), 1), 0)
        sums += tl.where(names == bucket, total, 0.0)
    return sums


@triton.jit
def _load_part(base, stride, rows, length, at, WIDTH: tl.constexpr, CHUNK: tl.constexpr):
    """CHUNK columns from `at` on of what `load_rows` reads."""
    columns = at + tl.arange(0, CHUNK)
    mask = rows[:, None] < length
    if WIDTH % CHUNK != 0:
        mask = mask & (columns[None, :] < WIDTH)
    return tl.load(base + rows.to(tl.int64)[:, None] * stride + columns[None, :], mask=mask, other=0.0)


@triton.jit
def _product(
    a, a_stride, b, b_stride, rows, columns, length, WIDTH: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr
):
    """Rows of a times rows of b, transposed: 64 of their columns at a time, for fewer addresses in registers."""
    CHUNK: tl.constexpr = min(PADDED, 64)
    result = tl.zeros([BLOCK, BLOCK], tl.float32)
    for at in range(0, PADDED, CHUNK):
        left = _load_part(a, a_stride, rows, length, at, WIDTH, CHUNK)
        right = _load_part(b, b_stride, columns, length, at, WIDTH, CHUNK)
        result = tl.dot(left, tl.trans(right), result, input_precision="ieee")
    return result


@triton.jit(do_not_specialize=UNSPECIALISED)
def hstu_attention_tables(
    position_sums,
    time_sums,
    scratch,
    q,
    k,
    v,
    grad,
    offsets,
    order,
    first_tile,
    position_bias,
    time_bias,
    bucket_ends,
    timestamps,
    num_targets,
    sequences,
    heads,
    max_len,
    last_bucket,
    window,
    contextual,
    scale,
    q_row,
    q_head,
    k_row,
    k_head,
    v_row,
    v_head,
    grad_row,
    grad_head,
    WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    VALUE_PADDED: tl.constexpr,
    HAS_POSITION: tl.constexpr,
    HAS_TIME: tl.constexpr,
    HAS_LIMITS: tl.constexpr,
    BUCKETS: tl.constexpr,
    SHARES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sums of this program's tiles: position_sums (programs, max_len) by i - j, time_sums (programs, BUCKETS).

    With limits position_sums is (programs, 2 * max_len - 1), by i - j + max_len - 1: a prefix sees later keys.
    """
    program = tl.program_id(0)
    size = max_len
    zero = 0
    if HAS_LIMITS:
        size = 2 * max_len - 1
        zero = max_len - 1
    position_table = position_sums + program.to(tl.int64) * size
    if HAS_POSITION:
        scratch += program * (BLOCK * BLOCK)
        for at in range(0, size, BLOCK):
            entries = at + tl.arange(0, BLOCK)
            tl.store(position_table + entries, tl.zeros([BLOCK], tl.float32), mask=entries < size)
    time_table = tl.zeros([BUCKETS], tl.float32)
    total = tl.load(first_tile + sequences).to(tl.int32) * SHARES
    for work in range(program, total, tl.num_programs(0)):
        start, length, begin, sequence = locate(order, first_tile, offsets, work // SHARES, sequences, BLOCK, True)
        rows = begin + tl.arange(0, BLOCK)
        times = load_times(timestamps + start, rows, length) if HAS_TIME else rows
        first = work % SHARES * BLOCK
        last = begin + BLOCK
        if HAS_LIMITS:
            history = history_of(num_targets, sequence, length)
            prefix = tl.minimum(contextual, history)
            first_key, last = seen_keys(begin, length, history, prefix, window, BLOCK)
            first += first_key // (SHARES * BLOCK) * (SHARES * BLOCK)
        for other in range(first, last, SHARES * BLOCK):
            columns = other + tl.arange(0, BLOCK)
            distance = rows[:, None] - columns[None, :]
            other_times = load_times(timestamps + start, columns, length) if HAS_TIME else columns
            gap = times[:, None] - other_times[None, :]
            half_bias = add_half_bias(
                tl.zeros([BLOCK, BLOCK], tl.float32),
                *(distance, position_bias, time_bias, bucket_ends, last_bucket, max_len, gap, HAS_POSITION, HAS_TIME),
                *(HAS_LIMITS, False),
            )
            d_scores = tl.zeros([BLOCK, BLOCK], tl.float32)
            for head in range(0, heads):
                half = _product(
                    *(q + start * q_row + head * q_head, q_row, k + start * k_row + head * k_head, k_row),
                    *(rows, columns, length, WIDTH, PADDED, BLOCK),
                )
                half = half * (0.5 * scale) + half_bias
                d_weights = _product(
                    *(grad + start * grad_row + head * grad_head, grad_row, v + start * v_row + head * v_head, v_row),
                    *(rows, columns, length, VALUE_WIDTH, VALUE_PADDED, BLOCK),
                )
                d_scores += d_weights * silu_and_gradient(half, q.dtype.element_ty == tl.float32)[1]
            counts = (distance >= 0) & (rows < length)[:, None]
            if HAS_LIMITS:
                counts = sees(rows[:, None], columns[None, :], history, prefix, window) & (rows < length)[:, None]
            d_scores = tl.where(counts, 0.5 * d_scores, 0.0)
            if HAS_POSITION:
                _add_diagonals(position_table, scratch, d_scores, rows, columns, zero, size, BLOCK)
            if HAS_TIME:
                # Volatile loads, because the compiler would otherwise load the timestamps before the loop over heads
                # and keep the tile's gaps in registers.
                own = tl.load(timestamps + start + rows, mask=rows < length, other=0, volatile=True)
                their = tl.load(timestamps + start + columns, mask=columns < length, other=0, volatile=True)
                buckets = time_bucket(own[:, None] - their[None, :], bucket_ends, last_bucket)
                time_table = _add_buckets(time_table, d_scores, buckets, counts, BUCKETS)
    if HAS_TIME:
        tl.store(time_sums + program * BUCKETS + tl.arange(0, BUCKETS), time_table)


def tables_block(widest: int, dtype: torch.dtype) -> int:
    """The number of queries, and of keys, of a tile."""
    if dtype == torch.float32:
        return 32 if widest <= 64 else 16
    return 64 if widest <= 256 else max(16, 16_384 // widest)


def tables_configs(widest: int, dtype: torch.dtype) -> list[triton.Config]:
    """The one committed configuration for heads padded to `widest` columns: the order of sums is fixed."""
    if dtype == torch.float32:
        return [triton.Config({}, num_warps=4, num_stages=1)]
    return [triton.Config({}, num_warps=8 if widest <= 256 else 4, num_stages=2)]


@cache
def _kernel(widest: int, dtype: torch.dtype) -> Any:
    key = ["WIDTH", "VALUE_WIDTH", "HAS_POSITION", "HAS_TIME", "HAS_LIMITS"]
    return tuned(tables_configs(widest, dtype), key, "q")(hstu_attention_tables)


def table_gradients(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Gradients of position_bias and time_bias in q's dtype, empty where there is no table."""
    position, time = (
        q.new_zeros(0 if table is None else len(table)) for table in (settings.position_bias, settings.time_bias)
    )
    if q.numel() and (len(position) or len(time)):
        by_distance, by_bucket = _sums(grad, q, k, v, settings)
        if len(position):
            position[len(position) - by_distance.shape[1] :] = by_distance.sum(0) / settings.max_len
        if len(time):
            entries = min(len(time), by_bucket.shape[1])
            time[:entries] = by_bucket.sum(0)[:entries] / settings.max_len
    return position, time


def _sums(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Each program's sums (programs, distances) and (programs, buckets); uninitialised where not used."""
    widest = max(block_of(q.shape[2]), block_of(v.shape[2]))
    block = tables_block(widest, q.dtype)
    arguments = common_arguments(q, v, settings, block)
    number, buckets = programs(q, 2), block_of(arguments["last_bucket"] + 1)
    distances = settings.max_len if settings.limits.are_none else 2 * settings.max_len - 1
    position_sums = q.new_empty(number, distances, dtype=torch.float32)
    time_sums = q.new_empty(number, buckets, dtype=torch.float32)
    scratch = q.new_empty(number, block, block, dtype=torch.float32)
    strides = {
        f"{name}_{dim}": x.stride(i)
        for name, x in (("q", q), ("k", k), ("v", v), ("grad", grad))
        for i, dim in enumerate(("row", "head"))
    }
    kernel = _kernel(widest, q.dtype)
    with on_device_of(q):
        kernel[(number,)](
            *(position_sums, time_sums, scratch, q, k, v, grad),
            **arguments,
            **strides,
            BUCKETS=buckets,
            SHARES=SHARES,
            BLOCK=block,
        )
    return position_sums, time_sums
