"""The gradients of the Mamba-2 scan, chunk by chunk, from the states before the chunks and the gradients of those
after them (triton_states.py).

A program owns one chunk of CHUNK tokens and HEADS heads of one group and loops over the heads and over blocks of P.
In registers (fp32): C B^T and its gradient (CHUNK, CHUNK), the gradients of B and C (CHUNK, N), added up over the
heads; what the programs of a group leave is added in a second step, as are the sums for A, D and dt_bias, each in a
fixed order: the same bits every run. Per head six products, 2 CHUNK P (2 CHUNK + 3 N) = 4.2 MFLOP with N = 128,
P = 64, and three (3 MFLOP) shared by the heads. Bytes a head: two states (16 KB each in bf16), five tiles of 8 KB, and
a quarter of the partial sums of B and C (64 KB): 8 x 512 tokens of 16 heads are 5 GFLOP and 90 MB; 27 us at 3.35 TB/s.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_tools import on_device_of, tile_schedule, tuned
from .triton_chunk import CHUNK, decays, find_chunk, heads_each, load_rows, load_steps, most_chunks, padded, store_rows

CONFIGS = [
    triton.Config({"BLOCK": 64}, num_warps=8, num_stages=1),
    triton.Config({"BLOCK": 32}, num_warps=8, num_stages=1),
    triton.Config({"BLOCK": 64}, num_warps=4, num_stages=1),
]


@tuned(CONFIGS, key=["width", "states"])
@triton.jit
def gradients_kernel(
    dx, ddt, dz, dB, dC, sums, grad, ungated, before, after,
    x, x_token, x_head, z, z_token, z_head, B, B_token, B_group, C, C_token, C_group,
    dt, dt_stride, A, D, dt_bias, offsets, order, first_chunk, sequences, tokens, heads, groups, width, states,
    SOFTPLUS: tl.constexpr, HEADS: tl.constexpr, CHUNK: tl.constexpr, MOST_P: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    BLOCK_P: tl.constexpr = MOST_P if MOST_P < BLOCK else BLOCK
    number = tl.program_id(0)
    if number >= tl.load(first_chunk + sequences):
        return
    token, count = find_chunk(number, offsets, order, first_chunk, sequences, CHUNK)
    first_head = tl.program_id(1) * HEADS
    group = first_head * groups // heads
    row = tl.arange(0, CHUNK)
    n = tl.arange(0, BLOCK_N)
    b = load_rows(B + group * B_group, B_token, token, count, n, states, CHUNK)
    c = load_rows(C + group * C_group, C_token, token, count, n, states, CHUNK)
    products = tl.dot(c, tl.trans(b), input_precision="ieee")
    slopes = tl.zeros((CHUNK, CHUNK), tl.float32)  # the gradient of C B^T
    d_b = tl.zeros((CHUNK, BLOCK_N), tl.float32)
    d_c = tl.zeros((CHUNK, BLOCK_N), tl.float32)
    for head in range(first_head, first_head + HEADS):
        rate = tl.load(A + head).to(tl.float32)
        raw, step, log_decay, last = load_steps(dt, dt_stride, dt_bias, rate, head, token, count, SOFTPLUS, CHUNK)
        decay = decays(log_decay, CHUNK)
        weights = (products * decay).to(b.dtype)
        from_start, to_end = tl.exp(log_decay), tl.exp(last - log_decay)
        d_products = tl.zeros((CHUNK, CHUNK), tl.float32)
        d_log = tl.zeros((CHUNK,), tl.float32)
        d_to_end = tl.zeros((CHUNK,), tl.float32)
        d_step = tl.zeros((CHUNK,), tl.float32)
        d_last = tl.zeros((), tl.float32)
        d_skip = tl.zeros((), tl.float32)
        for column in range(0, width, BLOCK_P):
            p = column + tl.arange(0, BLOCK_P)
            row_stride = heads * width
            g = load_rows(grad + head * width, row_stride, token, count, p, width, CHUNK).to(tl.float32)
            if z is not None:
                gate = load_rows(z + head * z_head, z_token, token, count, p, width, CHUNK).to(tl.float32)
                share = tl.sigmoid(gate)
                result = load_rows(ungated + head * width, row_stride, token, count, p, width, CHUNK).to(tl.float32)
                slope_of_gate = share * (1.0 + gate * (1.0 - share))
                store_rows(dz + head * width, g * result * slope_of_gate, row_stride, token, count, p, width, CHUNK)
                g *= gate * share
            values = load_rows(x + head * x_head, x_token, token, count, p, width, CHUNK)
            rounded = g.to(values.dtype)
            of_chunk = ((number.to(tl.int64) * heads + head) * states + n[:, None]) * width + p[None, :]
            in_state = (n[:, None] < states) & (p[None, :] < width)
            state = tl.load(before + of_chunk, mask=in_state, other=0.0)
            d_state = tl.load(after + of_chunk, mask=in_state, other=0.0)
            d_last += tl.sum(tl.sum(state.to(tl.float32) * d_state.to(tl.float32), 1), 0)
            d_products = tl.dot(rounded, tl.trans(values), d_products, input_precision="ieee")
            carried = tl.dot(rounded, tl.trans(state), input_precision="ieee") * from_start[:, None]
            d_log += tl.sum(carried * c.to(tl.float32), 1)
            d_c += carried
            gained = tl.dot(values, tl.trans(d_state), input_precision="ieee") * (to_end * step)[:, None]
            d_to_end += tl.sum(gained * b.to(tl.float32), 1)
            d_b += gained
            d_pulse = tl.dot(b, d_state, input_precision="ieee") * to_end[:, None]
            d_pulse = tl.dot(tl.trans(weights), rounded, d_pulse, input_precision="ieee")
            d_step += tl.sum(d_pulse * values.to(tl.float32), 1)
            d_value = d_pulse * step[:, None]
            d_skip += tl.sum(tl.sum(g * values.to(tl.float32), 1), 0)
            if D is not None:
                d_value += tl.load(D + head).to(tl.float32) * g
            store_rows(dx + head * width, d_value, row_stride, token, count, p, width, CHUNK)
        slope = d_products * decay * step[None, :]
        slopes += slope
        # A token's decay to itself is 1 whatever the steps: its share would come and go, and leave rounding.
        change = tl.where(row[:, None] > row[None, :], slope * products, 0.0)
        d_log += tl.sum(change, 1) - tl.sum(change, 0)
        # l is a sum of logarithms a_u = step_u A: each has a part in the l_t of its own and of later tokens, in the
        # whole chunk's decay, and in the decay to the end of earlier tokens.
        d_rate = tl.cumsum(d_log, 0, reverse=True) + d_last * tl.exp(last) + (tl.cumsum(d_to_end, 0) - d_to_end)
        d_step += d_rate * rate
        d_raw = d_step * tl.sigmoid(raw) if SOFTPLUS else d_step
        d_raw = tl.where(row < count, d_raw, 0.0)
        tl.store(ddt + (token + row) * heads + head, d_raw.to(ddt.dtype.element_ty), mask=row < count)
        place = number * heads + head
        of_sum = tl.num_programs(0) * heads
        tl.store(sums + place, tl.sum(d_rate * step, 0))
        tl.store(sums + of_sum + place, d_skip)
        tl.store(sums + 2 * of_sum + place, tl.sum(d_raw, 0))
    slopes_rounded = slopes.to(b.dtype)
    d_c = tl.dot(slopes_rounded, b, d_c, input_precision="ieee")
    d_b = tl.dot(tl.trans(slopes_rounded), c, d_b, input_precision="ieee")
    part = ((first_head - group * (heads // groups)) // HEADS).to(tl.int64)
    of_part = part * tokens * groups * states + group * states
    store_rows(dB + of_part, d_b, groups * states, token, count, n, states, CHUNK)
    store_rows(dC + of_part, d_c, groups * states, token, count, n, states, CHUNK)


def gradients(
    grad: Tensor,
    ungated: Tensor | None,
    before: Tensor,
    after: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    offsets: Tensor,
    dt_softplus: bool,
) -> tuple[Tensor | None, ...]:
    """Gradients of x, dt, A, B, C, D, z and dt_bias (None where the input is), those of parameters in float32."""
    heads, width = x.shape[1:]
    groups, states = B.shape[1:]
    dx, ddt = (torch.empty_like(v, memory_format=torch.contiguous_format) for v in (x, dt))
    dz = None if z is None else torch.empty_like(dx)
    each, chunks = heads_each(heads, groups), most_chunks(x, offsets)
    parts = x.new_empty((2, heads // groups // each, len(x), groups, states), dtype=torch.float32)
    sums = x.new_zeros((3, chunks, heads), dtype=torch.float32)
    order, first_chunk = tile_schedule(offsets, CHUNK)
    if x.numel():
        with on_device_of(x):
            gradients_kernel[(chunks, heads // each)](
                dx, ddt, dz, parts[0], parts[1], sums, grad, ungated, before, after,
                x, *x.stride()[:2], z, *(z.stride()[:2] if z is not None else (0, 0)), B, *B.stride()[:2], C,
                *C.stride()[:2], dt, dt.stride(0), A, D, dt_bias, offsets, order, first_chunk, len(order), len(x),
                heads, groups, width, states,
                SOFTPLUS=dt_softplus, HEADS=each, CHUNK=CHUNK, MOST_P=padded(width), BLOCK_N=padded(states),
            )  # fmt: skip
    else:
        ddt.zero_(), parts.zero_()
    dB, dC = parts.sum(1).to(x.dtype)
    dA, dD, d_bias = sums.sum(1)
    return dx, ddt, dA, dB, dC, (None if D is None else dD), dz, (None if dt_bias is None else d_bias)
