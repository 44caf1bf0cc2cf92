"""What the HSTU kernels share: which tile a program owns, how its rows are read, the bias of a tile, and SiLU.

Scores, biases and SiLU are fp32; what the kernels hold of a score x is its half h, because SiLU is h tanh(h) + h. A
pair (i, j) of query and key counts where j <= i, or, with HAS_LIMITS, as `sees` says; without, nothing of the latter is
compiled. The rows past the end of a sequence are read as zeros, so that they contribute nothing, and the rows of
another sequence are never read.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..triton_tools import INTERPRETED as _INTERPRETED
from ..triton_tools import find_sequence

INTERPRETED = tl.constexpr(_INTERPRETED)
_LOG2_E = tl.constexpr(1.4426950408889634)
# 1 / (0.301 log2(e)), lowered a little: a bucket is 0.301 wide in the natural logarithm of the gap.
_BUCKETS_PER_OCTAVE = tl.constexpr(0.6931471805599453 / 0.301 * (1 - 2e-5))


@triton.jit
def locate(
    order,
    first_tile,
    offsets,
    tile,
    sequences,
    BLOCK: tl.constexpr,
    LAST_FIRST: tl.constexpr,
    COUNTED: tl.constexpr = False,
):
    """The first token of the tile's sequence, its length, the tile's first row within it, and which sequence it is.

    LAST_FIRST takes a sequence's tiles from its end: for queries, of which the last attend to the most keys.
    """
    place = find_sequence(first_tile, tile, sequences, COUNTED)
    sequence = tl.load(order + place)
    start = tl.load(offsets + sequence)
    length = (tl.load(offsets + sequence + 1) - start).to(tl.int32)
    part = (tile - tl.load(first_tile + place)).to(tl.int32)
    if LAST_FIRST:
        part = (length + BLOCK - 1) // BLOCK - 1 - part
    return start, length, part * BLOCK, sequence


@triton.jit
def history_of(num_targets, sequence, length):
    """The tokens of the sequence that are no targets."""
    if num_targets is None:
        return length
    targets = tl.load(num_targets + sequence).to(tl.int32)
    return length - tl.minimum(tl.maximum(targets, 0), length)


@triton.jit
def step_of(positions, history, prefix):
    """The prefix's positions are at step 0, the rest of the history at 1, 2, ..., all targets at the next."""
    return tl.maximum(tl.minimum(positions, history) - prefix + 1, 0)


@triton.jit
def sees(queries, keys, history, prefix, window):
    """Whether the queries at those positions see the keys at those: what `visible.py` says."""
    own = step_of(queries, history, prefix)
    ahead = own - step_of(keys, history, prefix)
    return ((ahead > 0) & (ahead <= window)) | ((own == 0) & (keys < history)) | (queries == keys)


@triton.jit
def seen_keys(begin, length, history, prefix, window, BLOCK: tl.constexpr):
    """The first key that BLOCK queries from `begin` on see, and the one past the last."""
    at = tl.minimum(begin, history)
    first = tl.where(step_of(begin, history, prefix) <= window, 0, at - window)
    last = tl.minimum(begin + BLOCK, length)
    return first, tl.where(begin < prefix, tl.maximum(last, history), last)


@triton.jit
def last_query(begin, length, history, prefix, window, BLOCK: tl.constexpr):
    """The position past the last query that sees a key of the BLOCK from `begin` on."""
    furthest = tl.maximum(begin + BLOCK, prefix) - 1 + tl.minimum(window, length)
    return tl.where(furthest >= history, length, tl.minimum(furthest + 1, length))


@triton.jit
def load_rows(
    base, stride, rows, length, WIDTH: tl.constexpr, PADDED: tl.constexpr, ARE_ALL_REAL: tl.constexpr = False
):
    """Rows (n, PADDED) of a matrix of WIDTH columns; zeros in the padding and in the rows from `length` on, of which
    there are none with ARE_ALL_REAL."""
    columns = tl.arange(0, PADDED)
    pointers = base + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    if ARE_ALL_REAL and PADDED == WIDTH:
        values = tl.load(pointers)
    elif ARE_ALL_REAL:
        values = tl.load(pointers, mask=columns[None, :] < WIDTH, other=0.0)
    elif PADDED == WIDTH:
        values = tl.load(pointers, mask=rows[:, None] < length, other=0.0)
    else:
        values = tl.load(pointers, mask=(rows[:, None] < length) & (columns[None, :] < WIDTH), other=0.0)
    return values


@triton.jit
def store_rows(base, stride, rows, length, values, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Writes what `load_rows` would read."""
    columns = tl.arange(0, PADDED)
    pointers = base + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    mask = (rows[:, None] < length) & (columns[None, :] < WIDTH)
    tl.store(pointers, values.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _store_part(base, inputs, stride, rows, length, values, at, WIDTH: tl.constexpr, PART: tl.constexpr):
    columns = at + tl.arange(0, PART)
    offsets = rows.to(tl.int64)[:, None] * stride + columns[None, :]
    mask = (rows[:, None] < length) & (columns[None, :] < WIDTH)
    half = 0.5 * tl.load(inputs + offsets, mask=mask, other=0.0).to(tl.float32)
    values *= 0.5 * silu_and_gradient(half, inputs.dtype.element_ty == tl.float32)[1]
    tl.store(base + offsets, values.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _halves(values):
    return values.reshape(values.shape[0], 2, values.shape[1] // 2).permute(0, 2, 1).split()


@triton.jit
def store_input_gradients(
    base,
    inputs,
    stride,
    rows,
    length,
    values,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    SPECIALISED: tl.constexpr = False,
):
    """Writes gradients of SiLU's results as gradients of its inputs, which lie as `base`: a quarter of the columns
    after the other, or a half, because the sums leave few registers for the inputs; all at once where warps are
    specialised, which have more registers and are given whole rows."""
    if SPECIALISED:
        _store_part(base, inputs, stride, rows, length, values, 0, WIDTH, PADDED)
    elif PADDED >= 256:
        PART: tl.constexpr = PADDED // 4
        left, right = _halves(values)
        first, second = _halves(left)
        third, fourth = _halves(right)
        _store_part(base, inputs, stride, rows, length, first, 0, WIDTH, PART)
        _store_part(base, inputs, stride, rows, length, second, PART, WIDTH, PART)
        _store_part(base, inputs, stride, rows, length, third, 2 * PART, WIDTH, PART)
        _store_part(base, inputs, stride, rows, length, fourth, 3 * PART, WIDTH, PART)
    elif PADDED == 128:
        left, right = _halves(values)
        _store_part(base, inputs, stride, rows, length, left, 0, WIDTH, 64)
        _store_part(base, inputs, stride, rows, length, right, 64, WIDTH, 64)
    else:
        _store_part(base, inputs, stride, rows, length, values, 0, WIDTH, PADDED)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)) with two approximate instructions; exactly 0 and 1 for large |x|, NaN for NaN."""
    denominator = 1.0 + tl.exp2(x * -_LOG2_E)
    if INTERPRETED:
        return 1.0 / denominator
    return tl.inline_asm_elementwise(
        "rcp.approx.ftz.f32 $0, $1;", "=f,f", [denominator], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
def tanh(x):
    """The hyperbolic tangent by one instruction, to 2**-11 of its value; interpreted, to fp32's rounding."""
    if INTERPRETED:
        return 1.0 - 2.0 / (1.0 + tl.exp2(x * (2.0 * _LOG2_E)))
    return tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def silu(half, EXACT: tl.constexpr):
    """SiLU of x = 2 half: h tanh(h) + h, of one special instruction, or, EXACT, x sigmoid(x), of two.

    The first errs by at most |h| 2**-11, a quarter of what bf16 rounds from a weight where x is positive.
    """
    if EXACT:
        return 2.0 * half * sigmoid(2.0 * half)
    return half * tanh(half) + half


@triton.jit
def silu_and_gradient(half, EXACT: tl.constexpr):
    """SiLU of x = 2 half, and twice its derivative: 1 + t + h (1 - t^2) with t = tanh(h)."""
    if EXACT:
        sigma = sigmoid(2.0 * half)
        return 2.0 * half * sigma, 2.0 * sigma * (1.0 + 2.0 * half * (1.0 - sigma))
    t = tanh(half)
    return half * t + half, half * (1.0 - t * t) + (1.0 + t)


@triton.jit
def log2(x):
    """The logarithm by one approximate instruction, to 2**-22 absolutely; interpreted, to fp32's rounding."""
    if INTERPRETED:
        return tl.log2(x)
    return tl.inline_asm_elementwise("lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def time_bucket(gap, bucket_ends, last_bucket):
    """The exact bucket (int32) of int32 or int64 gaps: an estimate from the logarithm, at most one too low, and a
    comparison.

    `bucket_ends`, of the gaps' type, holds for each bucket the first gap past it, for the last the type's largest
    number. The logarithm is lowered by 2e-5 of itself, more than it errs.
    """
    gap = tl.maximum(tl.abs(gap), 1)
    guess = tl.minimum((log2(gap.to(tl.float32)) * _BUCKETS_PER_OCTAVE).to(tl.int32), last_bucket)
    bucket = guess + (gap >= tl.load(bucket_ends + guess)).to(tl.int32)
    if gap.dtype == tl.int64:  # of which the largest number can be a gap
        bucket = tl.minimum(bucket, last_bucket)
    return bucket


@triton.jit
def load_times(timestamps, rows, length, ARE_ALL_REAL: tl.constexpr = False):
    """Timestamps of rows, 0 from `length` on, of which there are none with ARE_ALL_REAL."""
    if ARE_ALL_REAL:
        times = tl.load(timestamps + rows)
    else:
        times = tl.load(timestamps + rows, mask=rows < length, other=0)
    return times


@triton.jit
def add_half_bias(
    half,
    distance,
    position_bias,
    time_bias,
    bucket_ends,
    last_bucket,
    max_len,
    gap,
    HAS_POSITION: tl.constexpr,
    HAS_TIME: tl.constexpr,
    HAS_LIMITS: tl.constexpr,
    IS_WHOLE: tl.constexpr,
):
    """Half of the scores with half of both biases.

    `distance` is i - j, with IS_WHOLE always one of the table's; `gap` that of their times, unused without HAS_TIME. As
    fp32 tables the compiler would bring them in by way of shared memory, for which heads of 256 have no registers.
    """
    if HAS_POSITION:
        entries = position_bias + (max_len - 1) + distance
        if IS_WHOLE:
            bias = tl.load(entries).to(tl.float32)
        else:
            if HAS_LIMITS:
                counts = (distance > -max_len) & (distance < max_len)
            else:
                counts = (distance >= 0) & (distance < max_len)
            bias = tl.load(entries, mask=counts, other=0.0).to(tl.float32)
        if HAS_TIME:
            bias += tl.load(time_bias + time_bucket(gap, bucket_ends, last_bucket)).to(tl.float32)
        half += 0.5 * bias
    elif HAS_TIME:
        half += 0.5 * tl.load(time_bias + time_bucket(gap, bucket_ends, last_bucket)).to(tl.float32)
    return half
