"""rope's Triton kernel: q and k in one launch; backward is the same rotation by the opposite angles.

Tiling: a program owns TOKENS tokens and loops over their heads, HEADS at a time, first q's, then k's. It finds each
token's position by bisection of the offsets (no table that a graph's replay would find out of date) and computes the
cosines and sines once for all heads: they stay in registers, 8 pairs a thread. In bf16 a token of 16 heads of 64 moves
4 KiB, 280 clocks of a multiprocessor's share of 3.35 TB/s; its 32 cosines and sines take about 60 instructions each,
4 times over (by the threads that hold other heads), some 60 clocks beside the loads. Two 16-byte loads a thread in
flight, 768 threads or more resident: 24 KiB a multiprocessor of the 18 KiB that 700 ns ask for. Predicted on H100:
75 to 85 % of 3.35 TB/s, the bisection's chain of loads from the nearest cache being what is not hidden.
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


@triton.jit
def _positions(offsets, token, sequences):
    """Each token's place in its sequence: the last b with offsets[b] <= token, by bisection, is the sequence."""
    low = tl.zeros_like(token)
    high = low + sequences
    width = sequences
    while width > 1:  # the bounds' distance at most halves, rounded up: the same number of steps for all tokens
        middle = (low + high) // 2
        is_right = tl.load(offsets + middle) <= token
        low = tl.where(is_right, middle, low)
        high = tl.where(is_right, high, middle)
        width = (width + 1) // 2
    return token - tl.load(offsets + low)


@triton.jit
def _cos_sin(turns):
    """Of angles in turns / 2**64 (int64, modulo a turn): reduced exactly to an eighth of a turn around 0, then
    Taylor's series to x**9 and x**10, 2e-9 off at most before rounding."""
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


@triton.jit
def _rotate_heads(
    out, x, token_stride, head_stride, token, is_token, heads, half, cos, sin, HEADS: tl.constexpr, HALF: tl.constexpr
):
    pair = tl.arange(0, HALF)[None, None, :]
    for start in range(0, heads, HEADS):
        head = (start + tl.arange(0, HEADS))[None, :, None]
        mask = is_token[:, None, None] & (head < heads) & (pair < half)
        place = token[:, None, None] * token_stride + head.to(tl.int64) * head_stride + pair
        first = tl.load(x + place, mask, other=0.0).to(tl.float32)
        second = tl.load(x + place + half, mask, other=0.0).to(tl.float32)
        written = (token[:, None, None] * heads + head) * (2 * half) + pair
        tl.store(out + written, (first * cos - second * sin).to(out.dtype.element_ty), mask)
        tl.store(out + written + half, (second * cos + first * sin).to(out.dtype.element_ty), mask)


# One sequence as a constant would leave the bisection a loop that never runs, on which Triton 3.6's compiler fails.
@triton.jit(do_not_specialize=["sequences"])
def rotate_kernel(
    q_out, k_out, q, k, offsets, steps, q_token_stride, q_head_stride, k_token_stride, k_head_stride,
    tokens, sequences, q_heads, k_heads, half,
    IS_INVERSE: tl.constexpr, TOKENS: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    is_token = token < tokens
    pair = tl.arange(0, HALF)
    step = tl.load(steps + pair, pair < half, other=0)
    turns = _positions(offsets, token, sequences)[:, None] * step[None, :]
    cos, sin = _cos_sin(turns)
    if IS_INVERSE:
        sin = -sin
    cos = cos[:, None, :]
    sin = sin[:, None, :]
    _rotate_heads(q_out, q, q_token_stride, q_head_stride, token, is_token, q_heads, half, cos, sin, HEADS, HALF)
    _rotate_heads(k_out, k, k_token_stride, k_head_stride, token, is_token, k_heads, half, cos, sin, HEADS, HALF)


def rotate(
    q_out: Tensor, k_out: Tensor, q: Tensor, k: Tensor, offsets: Tensor, steps: Tensor, is_inverse: bool
) -> None:
    """Writes q_out (T, H, D) and k_out (T, Hk, D), contiguous; `steps` int64 (D/2,) in turns / 2**64."""
    tokens, heads, width = q.shape
    if tokens == 0:
        return
    config = tile(heads, width)
    with on_device_of(q):
        rotate_kernel[(triton.cdiv(tokens, config.kwargs["TOKENS"]),)](
            q_out, k_out, q, k, offsets, steps, *q.stride()[:2], *k.stride()[:2],
            tokens, offsets.shape[0] - 1, heads, k.shape[1], width // 2,
            IS_INVERSE=is_inverse, **config.all_kwargs(),
        )  # fmt: skip
