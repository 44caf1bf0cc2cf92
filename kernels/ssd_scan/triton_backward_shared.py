"""The gradients of the Mamba-2 scan that heads share, B and C, and those of dt, A and dt_bias, by chunk.

A program owns one chunk of CHUNK tokens and HEADS heads of one group and loops over the heads and over blocks of 16
columns of P. Registers hold, in fp32, C B^T and its gradient (CHUNK, CHUNK), and the gradients of B and C (CHUNK, N),
accumulated over the heads. The partial gradients of a group's programs are added in a second step, as are those of A
and dt_bias, each in a fixed order. docs/gpu.md says what bounds it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..triton_tools import tuned
from .triton_chunk import decays, find_chunk, load_rows, load_steps, store_rows

# 32 columns at once would spill on sm_80; the registers of one program fill a multiprocessor.
CONFIGS = [triton.Config({"BLOCK": 16}, num_warps=8, num_stages=1)]


@tuned(CONFIGS, key=["width", "states"], tokens="tokens")
@triton.jit
def shared_gradients_kernel(
    ddt, dB, dC, of_token, of_chunk, grad, before, after,
    x, x_token, x_head, z, z_token, z_head, B, B_token, B_group, C, C_token, C_group,
    dt, dt_stride, A, dt_bias, offsets, order, first_chunk, sequences, tokens,
    heads: tl.constexpr, groups: tl.constexpr, width: tl.constexpr, states: tl.constexpr,
    SOFTPLUS: tl.constexpr, HEADS: tl.constexpr, CHUNK: tl.constexpr, MOST_P: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """of_token and of_chunk: see input_gradients_kernel; rows 1 and 2 of of_chunk receive the sums of A and dt_bias."""
    BLOCK_P: tl.constexpr = MOST_P if MOST_P < BLOCK else BLOCK
    chunk = tl.program_id(0)
    if chunk >= tl.load(first_chunk + sequences):
        return
    token, count = find_chunk(chunk, offsets, order, first_chunk, sequences, CHUNK)
    first_head = tl.program_id(1) * HEADS
    group = first_head * groups // heads
    row = tl.arange(0, CHUNK)
    n = tl.arange(0, BLOCK_N)
    b = load_rows(B + group * B_group, B_token, token, count, n, states, CHUNK)
    c = load_rows(C + group * C_group, C_token, token, count, n, states, CHUNK)
    products = tl.dot(c, tl.trans(b), input_precision="tf32x3")
    d_products = tl.zeros((CHUNK, CHUNK), tl.float32)  # the gradient of C B^T
    d_b = tl.zeros((CHUNK, BLOCK_N), tl.float32)
    d_c = tl.zeros((CHUNK, BLOCK_N), tl.float32)
    for head in range(first_head, first_head + HEADS):
        rate = tl.load(A + head).to(tl.float32)
        raw, step, log_decay, last = load_steps(dt, dt_stride, dt_bias, rate, head, token, count, SOFTPLUS, CHUNK)
        from_start, gain = tl.exp(log_decay), tl.exp(last - log_decay) * step
        d_weights = tl.zeros((CHUNK, CHUNK), tl.float32)
        d_last = tl.zeros((BLOCK_N,), tl.float32)
        for column in range(0, width, BLOCK_P):
            p = column + tl.arange(0, BLOCK_P)
            g = load_rows(grad + head * width, heads * width, token, count, p, width, CHUNK).to(tl.float32)
            if z is not None:
                gate = load_rows(z + head * z_head, z_token, token, count, p, width, CHUNK).to(tl.float32)
                g *= gate * tl.sigmoid(gate)
            values = load_rows(x + head * x_head, x_token, token, count, p, width, CHUNK)
            of_state = (chunk.to(tl.int64) * heads + head) * states * width
            index = n[:, None] * width + p[None, :]
            in_state = (n[:, None] < states) & (p[None, :] < width)
            state = tl.load(before + of_state + index, mask=in_state, other=0.0)
            d_state = tl.load(after + of_state + index, mask=in_state, other=0.0)
            d_last += tl.sum(state.to(tl.float32) * d_state.to(tl.float32), 1)
            # The rows of x are multiplied by the step here: as a factor of the products' columns it would be computed,
            # with its softplus, by every thread for 16 columns, in 60 registers.
            dt_x = (values.to(tl.float32) * step[:, None]).to(values.dtype)
            d_weights = tl.dot(g.to(values.dtype), tl.trans(dt_x), d_weights, input_precision="tf32x3")
            left = (g * from_start[:, None]).to(values.dtype)
            d_c = tl.dot(left, tl.trans(state), d_c, input_precision="tf32x3")
            left = (values.to(tl.float32) * gain[:, None]).to(values.dtype)
            d_b = tl.dot(left, tl.trans(d_state), d_b, input_precision="tf32x3")
        d_product = d_weights * decays(log_decay, False, CHUNK)
        d_products += d_product
        # A token's decay to itself is always 1: its contribution would be added and subtracted again, and leave a
        # rounding error.
        change = tl.where(row[:, None] > row[None, :], d_product * products, 0.0)
        at = of_token + (token * heads + head) + row * heads
        size = tl.full((), heads, tl.int64) * tokens
        d_log = tl.load(at, mask=row < count, other=0.0) + tl.sum(change, 1) - tl.sum(change, 0)
        d_to_end = tl.load(at + size, mask=row < count, other=0.0)
        # l is a sum of logarithms a_u = step_u A: each is a term of the l_t of its own and of later tokens, of the
        # whole chunk's decay, and of the decay to the end of earlier tokens.
        at_chunk = of_chunk + chunk * heads + head
        of_sum = tl.num_programs(0) * heads
        d_rate = (
            tl.cumsum(d_log, 0, reverse=True) + tl.sum(d_last, 0) * tl.exp(last) + (tl.cumsum(d_to_end, 0) - d_to_end)
        )
        d_raw = d_rate * rate + tl.load(at + 2 * size, mask=row < count, other=0.0)
        if SOFTPLUS:
            d_raw *= tl.sigmoid(raw)
        tl.store(ddt + (token * heads + head) + row * heads, d_raw.to(ddt.dtype.element_ty), mask=row < count)
        tl.store(at_chunk + of_sum, tl.sum(d_rate * step, 0))
        tl.store(at_chunk + 2 * of_sum, tl.sum(tl.where(row < count, d_raw, 0.0), 0))
    d_products_rounded = d_products.to(b.dtype)
    d_c = tl.dot(d_products_rounded, b, d_c, input_precision="tf32x3")
    d_b = tl.dot(tl.trans(d_products_rounded), c, d_b, input_precision="tf32x3")
    part = ((first_head - group * (heads // groups)) // HEADS).to(tl.int64)
    of_part = part * tokens * groups * states + group * states
    store_rows(dB + of_part, d_b, groups * states, token, count, n, states, CHUNK)
    store_rows(dC + of_part, d_c, groups * states, token, count, n, states, CHUNK)
