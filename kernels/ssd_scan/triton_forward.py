"""The outputs of the Mamba-2 scan, by chunk, from the states before the chunks (triton_states.py).

A program owns one chunk of CHUNK tokens, BLOCK_P columns, and HEADS heads of one group. It holds B and C (CHUNK, N) and
C B^T (fp32, in registers) and loops over its heads: y = (C B^T * decays) (steps x) + exp(l) (C state), then D x and the
gate. docs/gpu.md says what bounds it.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..tiles import block_of
from ..triton_tools import on_device_of, tile_schedule, tuned
from .triton_chunk import CHUNK, decays, find_chunk, heads_each, load_rows, load_steps, most_chunks, store_rows

CONFIGS = [
    triton.Config({}, num_warps=4, num_stages=1),
    triton.Config({}, num_warps=8, num_stages=1),
]


@tuned(CONFIGS, key=["width", "states"], tokens="x")
@triton.jit
def outputs_kernel(
    y, ungated, before, x, x_token, x_head, z, z_token, z_head, B, B_token, B_group, C, C_token, C_group,
    dt, dt_stride, A, D, dt_bias, offsets, order, first_chunk, sequences,
    heads: tl.constexpr, groups: tl.constexpr, width: tl.constexpr, states: tl.constexpr,
    SOFTPLUS: tl.constexpr, HEADS: tl.constexpr, CHUNK: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    chunk = tl.program_id(0)
    if chunk >= tl.load(first_chunk + sequences):
        return
    token, count = find_chunk(chunk, offsets, order, first_chunk, sequences, CHUNK)
    first_head = tl.program_id(1) * HEADS
    group = first_head * groups // heads
    p = tl.program_id(2) * BLOCK_P + tl.arange(0, BLOCK_P)
    n = tl.arange(0, BLOCK_N)
    b = load_rows(B + group * B_group, B_token, token, count, n, states, CHUNK)
    c = load_rows(C + group * C_group, C_token, token, count, n, states, CHUNK)
    products = tl.dot(c, tl.trans(b), input_precision="tf32x3")
    in_state = (n[:, None] < states) & (p[None, :] < width)
    for head in range(first_head, first_head + HEADS):
        of_chunk = before + (chunk.to(tl.int64) * heads + head) * states * width
        state = tl.load(of_chunk + (n[:, None] * width + p[None, :]), mask=in_state, other=0.0)
        values = load_rows(x + head * x_head, x_token, token, count, p, width, CHUNK)
        _, step, log_decay, _ = load_steps(
            dt, dt_stride, dt_bias, tl.load(A + head).to(tl.float32), head, token, count, SOFTPLUS, CHUNK
        )
        weights = (products * decays(log_decay, False, CHUNK)).to(values.dtype)
        dt_x = (values.to(tl.float32) * step[:, None]).to(values.dtype)
        result = tl.dot(c, state, input_precision="tf32x3") * tl.exp(log_decay)[:, None]
        result = tl.dot(weights, dt_x, result, input_precision="tf32x3")
        if D is not None:
            result += tl.load(D + head).to(tl.float32) * values.to(tl.float32)
        if ungated is not None:
            store_rows(ungated + head * width, result, heads * width, token, count, p, width, CHUNK)
        if z is not None:
            gate = load_rows(z + head * z_head, z_token, token, count, p, width, CHUNK).to(tl.float32)
            result *= gate * tl.sigmoid(gate)
        store_rows(y + head * width, result, heads * width, token, count, p, width, CHUNK)


def write_outputs(
    y: Tensor,
    ungated: Tensor | None,
    before: Tensor,
    x: Tensor,
    z: Tensor | None,
    B: Tensor,
    C: Tensor,
    dt: Tensor,
    A: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    offsets: Tensor,
    dt_softplus: bool,
) -> None:
    """Writes y (T, H, P), contiguous, and before the gate `ungated`, unless None; `before` from `states_between`."""
    if x.numel() == 0:
        return
    heads, width = x.shape[1:]
    groups, states = B.shape[1:]
    order, first_chunk = tile_schedule(offsets, CHUNK)
    each, block_p = heads_each(heads, groups), min(64, block_of(width))
    with on_device_of(x):
        outputs_kernel[(most_chunks(x, offsets), heads // each, triton.cdiv(width, block_p))](
            y, ungated, before, x, *x.stride()[:2], z, *(z.stride()[:2] if z is not None else (0, 0)),
            B, *B.stride()[:2], C, *C.stride()[:2], dt, dt.stride(0), A, D, dt_bias, offsets, order, first_chunk,
            len(order), heads, groups, width, states,
            SOFTPLUS=dt_softplus, HEADS=each, CHUNK=CHUNK, BLOCK_P=block_p, BLOCK_N=block_of(states),
        )  # fmt: skip
