"""The pass over the chunks of each sequence that carries the state forwards, or its gradient backwards.

A program owns a tile (BLOCK_N, BLOCK_P) of one head's state in one sequence and loops over the sequence's chunks. It
writes the state before each chunk (in x's dtype, as it is an operand of a matrix product next), and then adds the
chunk's B_s x_s^T with their decays to the chunk's end, by matrix instructions, to the decayed state, which stays in
registers in fp32. The gradient's pass does the same with C_t and the gradient of y, from the last chunk to the first.
So the states are written once and read once, unlike those of three separate passes. docs/gpu.md says what bounds it.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..tiles import block_of
from ..triton_tools import on_device_of, tile_schedule, tuned
from .triton_chunk import CHUNK, load_rows, load_steps, most_chunks

CONFIGS = [
    triton.Config({"BLOCK": 64}, num_warps=4, num_stages=3),
    triton.Config({"BLOCK": 64}, num_warps=4, num_stages=2),
    triton.Config({"BLOCK": 128}, num_warps=8, num_stages=2),
]


@tuned(CONFIGS, key=["width", "states"], tokens="rows")
@triton.jit
def states_kernel(
    between, final, initial, rows, rows_token, rows_head, gate, gate_token, gate_head, other, other_token, other_group,
    dt, dt_stride, A, dt_bias, offsets, order, first_chunk,
    heads: tl.constexpr, groups: tl.constexpr, width: tl.constexpr, states: tl.constexpr,
    REVERSE: tl.constexpr, SOFTPLUS: tl.constexpr, CHUNK: tl.constexpr, MOST_P: tl.constexpr, MOST_N: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    BLOCK_P: tl.constexpr = MOST_P if MOST_P < 64 else 64
    BLOCK_N: tl.constexpr = MOST_N if MOST_N < BLOCK else BLOCK
    s = tl.program_id(0) // heads
    head = tl.program_id(0) % heads
    group = head * groups // heads
    sequence = tl.load(order + s)
    start = tl.load(offsets + sequence)
    end = tl.load(offsets + sequence + 1)
    first = tl.load(first_chunk + s)
    chunks = (tl.load(first_chunk + s + 1) - first).to(tl.int32)
    decay_rate = tl.load(A + head).to(tl.float32)
    p = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    n = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (n[:, None] < states) & (p[None, :] < width)
    of_sequence = ((sequence * heads + head) * width + p[None, :]) * states + n[:, None]
    state = tl.zeros((BLOCK_N, BLOCK_P), tl.float32)
    if initial is not None:
        state += tl.load(initial + of_sequence, mask=inside, other=0.0).to(tl.float32)
    for i in range(chunks):
        chunk = chunks - 1 - i if REVERSE else i
        of_chunk = between + ((first + chunk) * heads + head) * states * width
        tl.store(of_chunk + (n[:, None] * width + p[None, :]), state.to(between.dtype.element_ty), mask=inside)
        token = start + chunk * CHUNK
        count = tl.minimum(end - token, CHUNK)
        left = load_rows(other + group * other_group, other_token, token, count, n, states, CHUNK)
        right = load_rows(rows + head * rows_head, rows_token, token, count, p, width, CHUNK).to(tl.float32)
        _, step, log_decay, last = load_steps(
            dt, dt_stride, dt_bias, decay_rate, head, token, count, SOFTPLUS, CHUNK
        )  # fmt: skip
        if REVERSE:
            if gate is not None:
                z = load_rows(gate + head * gate_head, gate_token, token, count, p, width, CHUNK).to(tl.float32)
                right *= z * tl.sigmoid(z)
            right *= tl.exp(log_decay)[:, None]
        else:
            right *= (tl.exp(last - log_decay) * step)[:, None]
        state *= tl.exp(last)
        state = tl.dot(tl.trans(left), right.to(left.dtype), state, input_precision="tf32x3")
    if final is not None:
        tl.store(final + of_sequence, state.to(final.dtype.element_ty), mask=inside)


def states_between(
    rows: Tensor,
    gate: Tensor | None,
    other: Tensor,
    dt: Tensor,
    A: Tensor,
    dt_bias: Tensor | None,
    offsets: Tensor,
    initial: Tensor | None,
    final: Tensor | None,
    *,
    reverse: bool,
    dt_softplus: bool,
) -> Tensor:
    """The state before each chunk (chunks, H, N, P) in rows' dtype; `final` (B, H, P, N) receives the last ones.

    With `reverse` the gradient of the state after each chunk: `rows` is then the gradient of y (T, H, P), `gate` z,
    `other` C, `initial` the gradient of the final state and `final` receives that of the initial one. Else x, None, B.
    """
    heads, width = rows.shape[1:]
    groups, states = other.shape[1:]
    sequences = offsets.shape[0] - 1
    between = rows.new_empty((most_chunks(rows, offsets), heads, states, width))
    if sequences * heads * width * states == 0:
        return between
    order, first_chunk = tile_schedule(offsets, CHUNK)
    most_p, most_n = block_of(width), block_of(states)

    def grid(meta):
        blocks_p = triton.cdiv(width, min(most_p, 64))
        return sequences * heads, blocks_p, triton.cdiv(states, min(most_n, meta["BLOCK"]))

    gates = (gate, *(gate.stride()[:2] if gate is not None else (0, 0)))
    with on_device_of(rows):
        states_kernel[grid](
            between, final, initial, rows, *rows.stride()[:2], *gates, other, *other.stride()[:2],
            dt, dt.stride(0), A, dt_bias, offsets, order, first_chunk, heads, groups, width, states,
            REVERSE=reverse, SOFTPLUS=dt_softplus, CHUNK=CHUNK, MOST_P=most_p, MOST_N=most_n,
        )  # fmt: skip
    return between
