"""The gradients of the Mamba-2 scan that belong to one head, x, z and D, by chunk; and how all gradients are assembled.

Both kernels (triton_backward_shared.py has the other) start from the states before the chunks and the gradients of
those after them (triton_states.py). One kernel for everything would need 300 to 400 registers for each thread.

A program owns one chunk of CHUNK tokens and HEADS heads of one group, holds B, C and C B^T, and loops over the heads
and over blocks of 16 columns of P: it computes what x_s contributes to later tokens of the chunk and to the state after
it. docs/gpu.md says what bounds it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tiles import block_of
from ..triton_tools import on_device_of, tile_schedule, tuned
from . import triton_backward_shared as shared
from .triton_chunk import CHUNK, decays, find_chunk, heads_each, load_rows, load_steps, most_chunks, store_rows

# 32 columns at once would spill 56 to 96 bytes for each thread.
CONFIGS = [triton.Config({"BLOCK": 16}, num_warps=4, num_stages=1)]


@tuned(CONFIGS, key=["width", "states"], tokens="tokens")
@triton.jit
def input_gradients_kernel(
    dx, dz, of_token, of_chunk, grad, ungated, before, after,
    x, x_token, x_head, z, z_token, z_head, B, B_token, B_group, C, C_token, C_group,
    dt, dt_stride, A, D, dt_bias, offsets, order, first_chunk, sequences, tokens,
    heads: tl.constexpr, groups: tl.constexpr, width: tl.constexpr, states: tl.constexpr,
    SOFTPLUS: tl.constexpr, HEADS: tl.constexpr, CHUNK: tl.constexpr, MOST_P: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Also writes what the gradients of the steps need: of_token, fp32 (3, T, H), the gradients of l_t through the
    state before the chunk, of the decay to the chunk's end, and of the step itself; and row 0 of of_chunk, D's
    gradient."""
    BLOCK_P: tl.constexpr = MOST_P if MOST_P < BLOCK else BLOCK
    chunk = tl.program_id(0)
    if chunk >= tl.load(first_chunk + sequences):
        return
    token, count = find_chunk(chunk, offsets, order, first_chunk, sequences, CHUNK)
    first_head = tl.program_id(1) * HEADS
    group = first_head * groups // heads
    row = tl.arange(0, CHUNK)
    n = tl.arange(0, BLOCK_N)
    row_stride = heads * width
    b = load_rows(B + group * B_group, B_token, token, count, n, states, CHUNK)
    c = load_rows(C + group * C_group, C_token, token, count, n, states, CHUNK)
    products = tl.dot(b, tl.trans(c), input_precision="tf32x3")  # (s, t)
    for head in range(first_head, first_head + HEADS):
        rate = tl.load(A + head).to(tl.float32)
        _, step, log_decay, last = load_steps(dt, dt_stride, dt_bias, rate, head, token, count, SOFTPLUS, CHUNK)
        weights = (products * decays(log_decay, True, CHUNK)).to(b.dtype)
        from_start, to_end = tl.exp(log_decay), tl.exp(last - log_decay)
        d_log = tl.zeros((CHUNK,), tl.float32)
        d_to_end = tl.zeros((CHUNK,), tl.float32)
        d_step = tl.zeros((CHUNK,), tl.float32)
        d_skip = tl.zeros((CHUNK,), tl.float32)
        for column in range(0, width, BLOCK_P):
            p = column + tl.arange(0, BLOCK_P)
            g = load_rows(grad + head * width, row_stride, token, count, p, width, CHUNK).to(tl.float32)
            if z is not None:
                gate = load_rows(z + head * z_head, z_token, token, count, p, width, CHUNK).to(tl.float32)
                share = tl.sigmoid(gate)
                result = load_rows(ungated + head * width, row_stride, token, count, p, width, CHUNK).to(tl.float32)
                slope_of_gate = share * (1.0 + gate * (1.0 - share))
                store_rows(dz + head * width, g * result * slope_of_gate, row_stride, token, count, p, width, CHUNK)
                g *= gate * share
            values = load_rows(x + head * x_head, x_token, token, count, p, width, CHUNK)
            wide = values.to(tl.float32)
            of_state = (chunk.to(tl.int64) * heads + head) * states * width
            index = n[:, None] * width + p[None, :]
            in_state = (n[:, None] < states) & (p[None, :] < width)
            state = tl.load(before + of_state + index, mask=in_state, other=0.0)
            d_state = tl.load(after + of_state + index, mask=in_state, other=0.0)
            d_log += from_start * tl.sum(tl.dot(c, state, input_precision="tf32x3") * g, 1)
            d_pulse = tl.dot(b, d_state, input_precision="tf32x3") * to_end[:, None]
            d_to_end += step * tl.sum(d_pulse * wide, 1)
            d_pulse = tl.dot(weights, g.to(values.dtype), d_pulse, input_precision="tf32x3")
            d_step += tl.sum(d_pulse * wide, 1)
            d_skip += tl.sum(g * wide, 1)
            d_pulse *= step[:, None]
            if D is not None:
                d_pulse += tl.load(D + head).to(tl.float32) * g
            store_rows(dx + head * width, d_pulse, row_stride, token, count, p, width, CHUNK)
        at = of_token + (token * heads + head) + row * heads
        size = tl.full((), heads, tl.int64) * tokens
        tl.store(at, d_log, mask=row < count)
        tl.store(at + size, d_to_end, mask=row < count)
        tl.store(at + 2 * size, d_step, mask=row < count)
        tl.store(of_chunk + chunk * heads + head, tl.sum(d_skip, 0))


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
    """Gradients of x, dt, A, B, C, D, z and dt_bias (None where the input is), those of parameters in float32.

    `grad` (T, H, P) is contiguous, as is `ungated`; `before` and `after` come from `triton_states.states_between`.
    """
    heads, width = x.shape[1:]
    groups, states = B.shape[1:]
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    ddt = torch.zeros_like(dt, memory_format=torch.contiguous_format)
    dz = None if z is None else torch.empty_like(dx)
    each, chunks = heads_each(heads, groups), most_chunks(x, offsets)
    of_token = x.new_empty((3, len(x), heads), dtype=torch.float32)
    of_chunk = x.new_zeros((3, chunks, heads), dtype=torch.float32)
    if x.numel() == 0:
        dB, dC = torch.zeros_like(B), torch.zeros_like(C)
    else:
        order, first_chunk = tile_schedule(offsets, CHUNK)
        gates = (z, *(z.stride()[:2] if z is not None else (0, 0)))
        inputs = (x, *x.stride()[:2], *gates, B, *B.stride()[:2], C, *C.stride()[:2], dt, dt.stride(0), A)
        schedule = (offsets, order, first_chunk, len(order), len(x))
        sizes = (heads, groups, width, states)
        settings = {"SOFTPLUS": dt_softplus, "HEADS": each, "CHUNK": CHUNK, "BLOCK_N": block_of(states)}
        settings["MOST_P"] = block_of(width)
        parts = x.new_empty((2, heads // groups // each, len(x), groups, states), dtype=torch.float32)
        with on_device_of(x):
            input_gradients_kernel[(chunks, heads // each)](
                dx, dz, of_token, of_chunk, grad, ungated, before, after, *inputs, D, dt_bias, *schedule, *sizes,
                **settings,
            )  # fmt: skip
            shared.shared_gradients_kernel[(chunks, heads // each)](
                ddt, parts[0], parts[1], of_token, of_chunk, grad, before, after, *inputs, dt_bias, *schedule, *sizes,
                **settings,
            )  # fmt: skip
        dB, dC = (part.sum(0).to(x.dtype) for part in parts)  # an operator's results may not share memory
    dD, dA, d_bias = (part.sum(0) for part in of_chunk)
    return dx, ddt, dA, dB, dC, (None if D is None else dD), dz, (None if dt_bias is None else d_bias)
