"""The forward kernel of causal attention.

A program owns one tile of BLOCK_M queries of one head and loops over the keys up to the diagonal, BLOCK_N at a time:
first the tiles before the diagonal, which need no mask, then those on it, with an online softmax (Milakov & Gimelshein
2018; Dao 2023). There is a program for each item of `tile_schedule`, in its order: the longest loops come first. The
fp32 accumulators (BLOCK_M x Dv) and a tile of scores (BLOCK_M x BLOCK_N) are in registers; q, and k and v of each
pipeline stage, are in shared memory. docs/gpu.md says what bounds it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tiles import block_of
from ..triton_tools import architecture, on_device_of, tile_schedule, tuned
from .triton_tiles import LOG2_E, configs, dot, find_tile, load_rows, most_items, store_rows


def forward_block(width: int, dtype: torch.dtype, arch: int) -> int:
    """Queries a tile on sm_`arch` (80, 90), for rows padded to `width` components."""
    if dtype == torch.float32:
        return 64 if width <= 64 else 32 if width <= 256 else 16
    if width <= (256 if arch >= 90 else 128):
        return 128
    return 64 if width <= 512 else 16


def forward_configs(width: int, dtype: torch.dtype, arch: int) -> list[triton.Config]:
    """What the autotuner chooses from; `width` is the larger of the padded widths of keys and values."""
    if dtype == torch.float32:
        return configs("BLOCK_N", [(16, 4, 1)])
    if width <= 64:  # at 128 registers two programs share a multiprocessor
        if arch >= 90:
            return configs("BLOCK_N", [(64, 8, 3, 128), (64, 8, 2, 128), (128, 8, 2)])
        return configs("BLOCK_N", [(64, 8, 3), (32, 8, 3, 128)])
    if width <= 128:
        more = [(128, 8, 2)] if arch >= 90 else []
        return configs("BLOCK_N", [(64, 8, 2), (64, 8, 3), *more])
    return configs("BLOCK_N", [(32, 8, 2)] if width <= 256 else [(16, 8, 1)])


@triton.jit
def _attend(
    q, k_base, v_base, positions, sums, maxima, denominators, first, last, k_stride, v_stride, length, c,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_N: tl.constexpr,
    ON_DIAGONAL: tl.constexpr,
):  # fmt: skip
    """The online softmax over keys first .. last - 1; in whole tiles every key is before every query."""
    for key in range(first, last, BLOCK_N):
        keys = key + tl.arange(0, BLOCK_N)
        k = load_rows(k_base, key, k_stride, length, BLOCK_N, D, BLOCK_D, ON_DIAGONAL)
        scores = dot(q, tl.trans(k), tl.zeros((q.shape[0], BLOCK_N), tl.float32))
        if ON_DIAGONAL:
            scores = tl.where(positions[:, None] >= keys[None, :], scores * c, float("-inf"))
            new_maxima = tl.maximum(maxima, tl.max(scores, 1))
            weights = tl.exp2(scores - new_maxima[:, None])
        else:
            new_maxima = tl.maximum(maxima, tl.max(scores, 1) * c)  # c >= 0
            weights = tl.exp2(scores * c - new_maxima[:, None])
        shrink = tl.exp2(maxima - new_maxima)
        denominators = denominators * shrink + tl.sum(weights, 1)
        v = load_rows(v_base, key, v_stride, length, BLOCK_N, DV, BLOCK_DV, ON_DIAGONAL)
        sums = dot(weights.to(v.dtype), v, sums * shrink[:, None])
        maxima = new_maxima
    return sums, maxima, denominators


@triton.jit
def causal_attention_forward(
    q, k, v, out, log_sums, offsets, order, first_tile,
    q_stride, q_head, k_stride, k_head, v_stride, v_head, tokens, heads, sequences, scale,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    """out (T, H, DV) contiguous; log_sums fp32 (H, T): log2 of each softmax's denominator."""
    item = tl.program_id(0)
    if item < tl.load(first_tile + sequences).to(tl.int32) * heads:
        head = (item % heads).to(tl.int64)
        start, length, first = find_tile(offsets, order, first_tile, item // heads, sequences, BLOCK_M, True)
        positions = first + tl.arange(0, BLOCK_M)
        queries = load_rows(q + start * q_stride + head * q_head, first, q_stride, length, BLOCK_M, D, BLOCK_D, True)
        # With the sign of the scale, so that the largest product is the largest score.
        queries = (queries.to(tl.float32) * tl.where(scale < 0, -1.0, 1.0)).to(q.dtype.element_ty)
        c = tl.abs(scale) * LOG2_E
        k_base, v_base = k + start * k_stride + head * k_head, v + start * v_stride + head * v_head
        sums = tl.zeros((BLOCK_M, BLOCK_DV), tl.float32)
        maxima = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        denominators = tl.zeros((BLOCK_M,), tl.float32)
        sums, maxima, denominators = _attend(
            queries, k_base, v_base, positions, sums, maxima, denominators, 0, first, k_stride, v_stride, length, c,
            D, DV, BLOCK_D, BLOCK_DV, BLOCK_N, False,
        )  # fmt: skip
        last = tl.minimum(first + BLOCK_M, length)
        sums, maxima, denominators = _attend(
            queries, k_base, v_base, positions, sums, maxima, denominators, first, last, k_stride, v_stride, length, c,
            D, DV, BLOCK_D, BLOCK_DV, BLOCK_N, True,
        )  # fmt: skip
        out_base = out + (start * heads + head) * DV
        store_rows(out_base, sums / denominators[:, None], first, heads * DV, length, BLOCK_M, DV, BLOCK_DV)
        tl.store(log_sums + head * tokens + start + positions, maxima + tl.log2(denominators), mask=positions < length)


@cache
def _tuned(width: int, dtype: torch.dtype, arch: int) -> Any:
    return tuned(forward_configs(width, dtype, arch), ["BLOCK_D", "BLOCK_DV"], "tokens")(causal_attention_forward)


def launch_forward(
    out: Tensor, log_sums: Tensor, q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, scale: float
) -> None:
    """Fills `out` (T, H, Dv) and `log_sums` (H, T)."""
    tokens, heads, width = q.shape
    if tokens == 0:
        return
    sequences, value_width = offsets.shape[0] - 1, v.shape[2]
    block_d, block_dv = block_of(width), block_of(value_width)
    widest = max(block_d, block_dv)
    arch = architecture(q.device)
    block = forward_block(widest, q.dtype, arch)
    with on_device_of(q):
        order, first_tile = tile_schedule(offsets, block)
        _tuned(widest, q.dtype, arch)[(most_items(tokens, sequences, heads, block),)](
            q, k, v, out, log_sums, offsets, order, first_tile,
            *q.stride()[:2], *k.stride()[:2], *v.stride()[:2], tokens, heads, sequences, scale,
            D=width, DV=value_width, BLOCK_D=block_d, BLOCK_DV=block_dv, BLOCK_M=block,
        )  # fmt: skip
