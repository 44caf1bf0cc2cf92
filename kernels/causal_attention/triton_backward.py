"""The backward kernels of causal attention; the weights are recomputed from the forward pass's log-sums (Dao 2023, alg.
2).

There are three kernels, and each output is written by one program in one order, without atomics.
delta: rowsum(out * grad) of a tile of queries and one head.
keys: a program owns BLOCK_N keys of one head and loops over the queries, BLOCK_M at a time, from the diagonal to the
end of the sequence. dk and dv in fp32 and two transposed tiles of scores are in registers; k and v, and q and grad of
each pipeline stage, are in shared memory.
queries: a program owns BLOCK_M queries and loops over the keys up to the diagonal, with dq in registers.
docs/gpu.md says what bounds them.
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

DELTA_BLOCK = 32
DELTA_CONFIGS = [triton.Config({}, num_warps=4)]


def backward_block(width: int, dtype: torch.dtype, arch: int) -> int:
    """Tokens of the tile that a program owns on sm_`arch` (80, 90), for rows padded to `width` components."""
    if dtype == torch.float32:
        return 32 if width <= 128 else 16
    if arch >= 90 and width <= 128:
        return 128
    return 64 if width <= 256 else 32 if width <= 512 else 16


def keys_configs(width: int, dtype: torch.dtype, arch: int) -> list[triton.Config]:
    """What the autotuner chooses from; `width` is the larger of the padded widths of keys and values."""
    if dtype == torch.float32:
        return configs("BLOCK_M", [(16, 4, 1)])
    if width <= 64:
        return configs("BLOCK_M", [(64, 8, 2), (64, 8, 3), (32, 8, 3)] if arch >= 90 else [(32, 8, 2)])
    if width <= 128:
        return configs("BLOCK_M", [(64, 8, 2), (32, 8, 2)] if arch >= 90 else [(32, 8, 2)])
    if width <= 256:
        return configs("BLOCK_M", [(16, 8, 2)] if arch >= 90 else [(32, 8, 2)])
    return configs("BLOCK_M", [(16, 8, 1)])


def queries_configs(width: int, dtype: torch.dtype, arch: int) -> list[triton.Config]:
    """As `keys_configs`."""
    if dtype == torch.float32:
        return configs("BLOCK_N", [(16, 4, 1)])
    if width <= 64 and arch >= 90:  # at 128 registers two programs share a multiprocessor
        return configs("BLOCK_N", [(64, 8, 2, 128), (32, 8, 2, 128), (64, 8, 3)])
    if width <= 128:
        return configs("BLOCK_N", [(64, 8, 2), (32, 8, 2)])
    return configs("BLOCK_N", [(32, 8, 2)] if width <= 256 else [(16, 8, 1)])


@triton.jit
def causal_attention_delta(
    grad, out, delta, grad_stride, grad_head, tokens, heads, DV: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """delta fp32 (H, T): rowsum(out * grad), which the softmax's gradient subtracts."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    head = tl.program_id(1).to(tl.int64)
    g = load_rows(grad + head * grad_head, first, grad_stride, tokens, BLOCK, DV, BLOCK_DV, True)
    o = load_rows(out + head * DV, first, heads * DV, tokens, BLOCK, DV, BLOCK_DV, True)
    rows = first + tl.arange(0, BLOCK)
    tl.store(delta + head * tokens + rows, tl.sum(g.to(tl.float32) * o.to(tl.float32), 1), mask=rows < tokens)


@triton.jit
def _keys_loop(
    keys, k, v, dk, dv, q_base, g_base, log_sums, delta, first, last, q_stride, g_stride, length, c,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr,
    ON_DIAGONAL: tl.constexpr,
):  # fmt: skip
    """Adds the contributions of queries first .. last - 1 to dk (before scaling) and dv. Tiles are transposed: keys x
    queries."""
    for query in range(first, last, BLOCK_M):
        queries = query + tl.arange(0, BLOCK_M)
        q = load_rows(q_base, query, q_stride, length, BLOCK_M, D, BLOCK_D, True)
        scores = dot(k, tl.trans(q), tl.zeros((k.shape[0], BLOCK_M), tl.float32))
        # Infinity gives a weight of 0 where there is no query.
        log_sum = tl.load(log_sums + queries, mask=queries < length, other=float("inf"))
        weights = tl.exp2(scores * c - log_sum[None, :])
        if ON_DIAGONAL:
            weights = tl.where(queries[None, :] >= keys[:, None], weights, 0.0)
        g = load_rows(g_base, query, g_stride, length, BLOCK_M, DV, BLOCK_DV, True)
        dv = dot(weights.to(g.dtype), g, dv)
        grads_out = dot(v, tl.trans(g), tl.zeros((k.shape[0], BLOCK_M), tl.float32))
        d_scores = weights * (grads_out - tl.load(delta + queries, mask=queries < length, other=0.0)[None, :])
        dk = dot(d_scores.to(q.dtype), q, dk)
    return dk, dv


@triton.jit
def causal_attention_backward_keys(
    dk, dv, grad, log_sums, delta, q, k, v, offsets, order, first_tile,
    grad_stride, grad_head, q_stride, q_head, k_stride, k_head, v_stride, v_head, tokens, heads, sequences, scale,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
):  # fmt: skip
    """dk (T, H, D) and dv (T, H, DV), contiguous; log_sums and delta (H, T)."""
    c = scale * LOG2_E
    item = tl.program_id(0)
    if item < tl.load(first_tile + sequences).to(tl.int32) * heads:
        head = (item % heads).to(tl.int64)
        start, length, first = find_tile(offsets, order, first_tile, item // heads, sequences, BLOCK_N, False)
        keys = first + tl.arange(0, BLOCK_N)
        ks = load_rows(k + start * k_stride + head * k_head, first, k_stride, length, BLOCK_N, D, BLOCK_D, True)
        vs = load_rows(v + start * v_stride + head * v_head, first, v_stride, length, BLOCK_N, DV, BLOCK_DV, True)
        q_base, g_base = q + start * q_stride + head * q_head, grad + start * grad_stride + head * grad_head
        row = head * tokens + start
        dks = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
        dvs = tl.zeros((BLOCK_N, BLOCK_DV), tl.float32)
        after = tl.minimum(first + BLOCK_N, length)
        dks, dvs = _keys_loop(
            keys, ks, vs, dks, dvs, q_base, g_base, log_sums + row, delta + row, first, after, q_stride,
            grad_stride, length, c, D, DV, BLOCK_D, BLOCK_DV, BLOCK_M, True,
        )  # fmt: skip
        dks, dvs = _keys_loop(
            keys, ks, vs, dks, dvs, q_base, g_base, log_sums + row, delta + row, after, length, q_stride,
            grad_stride, length, c, D, DV, BLOCK_D, BLOCK_DV, BLOCK_M, False,
        )  # fmt: skip
        token = start * heads + head
        store_rows(dk + token * D, dks * scale, first, heads * D, length, BLOCK_N, D, BLOCK_D)
        store_rows(dv + token * DV, dvs, first, heads * DV, length, BLOCK_N, DV, BLOCK_DV)


@triton.jit
def _queries_loop(
    positions, q, g, log_sum, delta, dq, k_base, v_base, first, last, k_stride, v_stride, length, c,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_N: tl.constexpr,
    ON_DIAGONAL: tl.constexpr,
):  # fmt: skip
    """Adds the contributions of keys first .. last - 1 to dq (before scaling)."""
    for key in range(first, last, BLOCK_N):
        k = load_rows(k_base, key, k_stride, length, BLOCK_N, D, BLOCK_D, ON_DIAGONAL)
        weights = tl.exp2(dot(q, tl.trans(k), tl.zeros((q.shape[0], BLOCK_N), tl.float32)) * c - log_sum[:, None])
        if ON_DIAGONAL:
            weights = tl.where(positions[:, None] >= (key + tl.arange(0, BLOCK_N))[None, :], weights, 0.0)
        v = load_rows(v_base, key, v_stride, length, BLOCK_N, DV, BLOCK_DV, ON_DIAGONAL)
        grads_out = dot(g, tl.trans(v), tl.zeros((q.shape[0], BLOCK_N), tl.float32))
        dq = dot((weights * (grads_out - delta[:, None])).to(k.dtype), k, dq)
    return dq


@triton.jit
def causal_attention_backward_queries(
    dq, grad, log_sums, delta, q, k, v, offsets, order, first_tile,
    grad_stride, grad_head, q_stride, q_head, k_stride, k_head, v_stride, v_head, tokens, heads, sequences, scale,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    """dq (T, H, D), contiguous; log_sums and delta (H, T)."""
    c = scale * LOG2_E
    item = tl.program_id(0)
    if item < tl.load(first_tile + sequences).to(tl.int32) * heads:
        head = (item % heads).to(tl.int64)
        start, length, first = find_tile(offsets, order, first_tile, item // heads, sequences, BLOCK_M, True)
        positions = first + tl.arange(0, BLOCK_M)
        g_base = grad + start * grad_stride + head * grad_head
        qs = load_rows(q + start * q_stride + head * q_head, first, q_stride, length, BLOCK_M, D, BLOCK_D, True)
        gs = load_rows(g_base, first, grad_stride, length, BLOCK_M, DV, BLOCK_DV, True)
        rows = head * tokens + start + positions
        log_sum = tl.load(log_sums + rows, mask=positions < length, other=float("inf"))
        deltas = tl.load(delta + rows, mask=positions < length, other=0.0)
        k_base, v_base = k + start * k_stride + head * k_head, v + start * v_stride + head * v_head
        dqs = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
        dqs = _queries_loop(
            positions, qs, gs, log_sum, deltas, dqs, k_base, v_base, 0, first, k_stride, v_stride, length, c,
            D, DV, BLOCK_D, BLOCK_DV, BLOCK_N, False,
        )  # fmt: skip
        last = tl.minimum(first + BLOCK_M, length)
        dqs = _queries_loop(
            positions, qs, gs, log_sum, deltas, dqs, k_base, v_base, first, last, k_stride, v_stride, length, c,
            D, DV, BLOCK_D, BLOCK_DV, BLOCK_N, True,
        )  # fmt: skip
        dq_base = dq + (start * heads + head) * D
        store_rows(dq_base, dqs * scale, first, heads * D, length, BLOCK_M, D, BLOCK_D)


@cache
def _tuned_delta() -> Any:
    return tuned(DELTA_CONFIGS, [], "tokens")(causal_attention_delta)


@cache
def _tuned_keys(width: int, dtype: torch.dtype, arch: int) -> Any:
    return tuned(keys_configs(width, dtype, arch), ["BLOCK_D", "BLOCK_DV"], "tokens")(causal_attention_backward_keys)


@cache
def _tuned_queries(width: int, dtype: torch.dtype, arch: int) -> Any:
    return tuned(queries_configs(width, dtype, arch), ["BLOCK_D", "BLOCK_DV"], "tokens")(
        causal_attention_backward_queries
    )


def launch_backward(
    dq: Tensor, dk: Tensor, dv: Tensor, grad: Tensor, out: Tensor, log_sums: Tensor, q: Tensor, k: Tensor, v: Tensor,
    offsets: Tensor, scale: float,
) -> None:  # fmt: skip
    """Fills the contiguous gradients dq, dk, dv from the output's."""
    tokens, heads, width = q.shape
    if tokens == 0:
        return
    sequences, value_width = offsets.shape[0] - 1, v.shape[2]
    block_d, block_dv = block_of(width), block_of(value_width)
    widest = max(block_d, block_dv)
    arch = architecture(q.device)
    block = backward_block(widest, q.dtype, arch)
    delta = torch.empty_like(log_sums)
    widths = {"D": width, "DV": value_width, "BLOCK_D": block_d, "BLOCK_DV": block_dv}
    with on_device_of(q):
        _tuned_delta()[(triton.cdiv(tokens, DELTA_BLOCK), heads)](
            grad, out, delta, *grad.stride()[:2], tokens, heads, DV=value_width, BLOCK_DV=block_dv, BLOCK=DELTA_BLOCK
        )
        order, first_tile = tile_schedule(offsets, block)
        grid = (most_items(tokens, sequences, heads, block),)
        read = (grad, log_sums, delta, q, k, v, offsets, order, first_tile)
        strides = (stride for x in (grad, q, k, v) for stride in x.stride()[:2])
        sizes = (*strides, tokens, heads, sequences, scale)
        _tuned_keys(widest, q.dtype, arch)[grid](dk, dv, *read, *sizes, **widths, BLOCK_N=block)
        _tuned_queries(widest, q.dtype, arch)[grid](dq, *read, *sizes, **widths, BLOCK_M=block)
