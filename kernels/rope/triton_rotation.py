"""rope's Triton kernels: the angles of a batch, once for all its layers; and q and k in one launch. The backward pass
is the same rotation by the opposite angles.

`angles_kernel` finds each token's position by bisection of the offsets and computes cosines and sines of the positions
there can be, a small table that stays in the caches. A program of `rotate_kernel` owns TOKENS tokens and loops over
their heads, HEADS at a time, first those of q, then those of k. It gathers the tokens' rows of the table once for all
heads: they stay in registers, 8 pairs for each thread. docs/gpu.md says what bounds it.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..triton_tools import on_device_of


def tile(heads: int, width: int) -> triton.Config:
    """The tile for q of (T, heads, width): 1,024 pairs, those of 8 tokens and 4 heads of 64."""
    half = max(8, triton.next_power_of_2(width // 2))
    block = max(1, min(triton.next_power_of_2(heads), 4, 1024 // half))
    tokens = max(1, min(64, 1024 // (half * block)))
    return triton.Config({"TOKENS": tokens, "HEADS": block, "HALF": half}, num_warps=4, num_stages=1)


def angles_tile(width: int) -> triton.Config:
    """256 tokens, and the positions whose angles are 1,024."""
    half = max(8, triton.next_power_of_2(width // 2))
    return triton.Config({"TOKENS": 256, "ROWS": max(1, 1024 // half), "HALF": half}, num_warps=4, num_stages=1)


@triton.jit
def _positions(offsets, token, sequences):
    """Each token's index in its sequence, which is the last b with offsets[b] <= token, found by bisection."""
    low = tl.zeros_like(token)
    high = low + sequences
    width = sequences
    while width > 1:  # rounded up, the distance of the bounds is the same for all tokens
        middle = (low + high) // 2
        is_right = tl.load(offsets + middle) <= token
        low = tl.where(is_right, middle, low)
        high = tl.where(is_right, high, middle)
        width = (width + 1) // 2
    return token - tl.load(offsets + low)


@triton.jit
def _cos_sin(turns):
    """Cosines and sines of angles in turns / 2**64 (int64, modulo a turn). The angle is reduced exactly to an eighth of
    a turn around 0; Taylor series to x**9 and x**10 then have an error of at most 2e-9 before rounding."""
    quarter = (turns + (1 << 61)) >> 62
    x = (turns - (quarter << 62)).to(tl.float32) * 3.4061215800304e-19  # 2 pi / 2**64
    square = x * x
    sin = 1.0 / 362880.0
    sin = sin * square - 1.0 / 5040.0
    sin = sin * square + 1.0 / 120.0
    sin = sin * square - 1.0 / 6.0
    sin = sin * square * x + x
    cos = square * (-1.0 / 3628800.0) + 1.0 / 40320.0
    cos = cos * square - 1.0 / 720.0
    cos = cos * square + 1.0 / 24.0
    cos = cos * square - 0.5
    cos = cos * square + 1.0
    is_odd = (quarter & 1) != 0
    first = tl.where(is_odd, sin, cos)
    second = tl.where(is_odd, cos, sin)
    first = tl.where(((quarter + 1) & 2) != 0, -first, first)
    return first, tl.where((quarter & 2) != 0, -second, second)


# Specialised on a single sequence, the bisection would be a loop that never runs, on which Triton 3.6's compiler fails.
@triton.jit(do_not_specialize=["sequences"])
def angles_kernel(
    positions, table, offsets, steps, tokens, sequences, rows, half,
    TOKENS: tl.constexpr, ROWS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    tl.store(positions + token, _positions(offsets, token, sequences).to(tl.int32), token < tokens)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    pair = tl.arange(0, HALF)
    step = tl.load(steps + pair, pair < half, other=0)
    cos, sin = _cos_sin(row[:, None] * step[None, :])
    index = row[:, None] * (2 * half) + pair[None, :]
    mask = (row < rows)[:, None] & (pair < half)[None, :]
    tl.store(table + index, cos, mask)
    tl.store(table + index + half, sin, mask)


@triton.jit
def _rotate_heads(
    out, x, token_stride, head_stride, token, is_token, heads, half, cos, sin, HEADS: tl.constexpr, HALF: tl.constexpr
):
    pair = tl.arange(0, HALF)[None, None, :]
    for start in range(0, heads, HEADS):
        head = (start + tl.arange(0, HEADS))[None, :, None]
        mask = is_token[:, None, None] & (head < heads) & (pair < half)
        index = token[:, None, None] * token_stride + head.to(tl.int64) * head_stride + pair
        first = tl.load(x + index, mask, other=0.0).to(tl.float32)
        second = tl.load(x + index + half, mask, other=0.0).to(tl.float32)
        out_index = (token[:, None, None] * heads + head) * (2 * half) + pair
        tl.store(out + out_index, (first * cos - second * sin).to(out.dtype.element_ty), mask)
        tl.store(out + out_index + half, (second * cos + first * sin).to(out.dtype.element_ty), mask)


@triton.jit
def rotate_kernel(
    q_out, k_out, q, k, positions, table, q_token_stride, q_head_stride, k_token_stride, k_head_stride,
    tokens, q_heads, k_heads, half,
    IS_INVERSE: tl.constexpr, TOKENS: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    is_token = token < tokens
    pair = tl.arange(0, HALF)
    position = tl.load(positions + token, is_token, other=0).to(tl.int64)
    angle = table + position[:, None] * (2 * half) + pair[None, :]
    mask = is_token[:, None] & (pair < half)[None, :]
    cos = tl.load(angle, mask, other=0.0)
    sin = tl.load(angle + half, mask, other=0.0)
    if IS_INVERSE:
        sin = -sin
    cos = cos[:, None, :]
    sin = sin[:, None, :]
    _rotate_heads(q_out, q, q_token_stride, q_head_stride, token, is_token, q_heads, half, cos, sin, HEADS, HALF)
    _rotate_heads(k_out, k, k_token_stride, k_head_stride, token, is_token, k_heads, half, cos, sin, HEADS, HALF)


def write_angles(positions: Tensor, table: Tensor, offsets: Tensor, steps: Tensor) -> None:
    """Writes positions int32 (T,) and table float32 (P, D); `steps` int64 (D/2,) in turns / 2**64."""
    (rows, width), tokens = table.shape, positions.shape[0]
    if tokens == 0:
        return
    config = angles_tile(width)
    tiles = max(triton.cdiv(tokens, config.kwargs["TOKENS"]), triton.cdiv(rows, config.kwargs["ROWS"]))
    with on_device_of(offsets):
        angles_kernel[(tiles,)](
            positions, table, offsets, steps, tokens, offsets.shape[0] - 1, rows, width // 2, **config.all_kwargs()
        )


def rotate(
    q_out: Tensor, k_out: Tensor, q: Tensor, k: Tensor, positions: Tensor, table: Tensor, is_inverse: bool
) -> None:
    """Writes q_out (T, H, D) and k_out (T, Hk, D), contiguous."""
    tokens, heads, width = q.shape
    if tokens == 0:
        return
    config = tile(heads, width)
    with on_device_of(q):
        rotate_kernel[(triton.cdiv(tokens, config.kwargs["TOKENS"]),)](
            q_out, k_out, q, k, positions, table, *q.stride()[:2], *k.stride()[:2],
            tokens, heads, k.shape[1], width // 2,
            IS_INVERSE=is_inverse, **config.all_kwargs(),
        )  # fmt: skip
