"""The kernels of a sparse AdamW step: one pass over the touched rows.

A program owns one piece of a run of equal ids (triton_runs.py). It sums the piece's gradients in registers, loading
UNROLL rows at a time; if these are all gradients of the row, it reads the row's three tensors and its state, updates
them and writes them back. A second launch does this for rows whose gradients lie in several chunks.
"""

from __future__ import annotations

import math
import struct

import triton
import triton.language as tl
from torch import Tensor

from ..triton_runs import CHUNK, find_long_run, find_piece, new_partials, partial_row, sum_partials
from ..triton_tools import on_device_of, tuned

# One configuration each: the autotuner would take the same step several times, in place.
PIECES_CONFIGS = [triton.Config({"UNROLL": 4}, num_warps=1)]
LONG_RUNS_CONFIGS = [triton.Config({"UNROLL": 8}, num_warps=1)]
# They change at every step, so specialising a kernel on their values gains nothing.
_VARYING = ["step", "decayed", "log_beta1", "log_beta2"]


@triton.jit
def _double(bits):
    """A float64 from its bits, because a launch would pass a Python float in float32."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def _factors(last_step, last_decay, row, step, decayed, log_beta1, log_beta2):
    """The factors by which the moments and the row catch up: beta1^k, beta2^k and the product of the decays, fp32."""
    steps = (step - tl.load(last_step + row)).to(tl.float64)
    decay = tl.exp(_double(decayed) - tl.load(last_decay + row)).to(tl.float32)
    return (
        tl.exp(steps * _double(log_beta1)).to(tl.float32),
        tl.exp(steps * _double(log_beta2)).to(tl.float32),
        decay,
    )


@triton.jit
def _update(
    table, exp_avg, exp_avg_sq, row, table_stride, avg_stride, avg_sq_stride, columns, width, g,
    keep1, keep2, decay, add1, add2, rate, root, eps,
):  # fmt: skip
    """Applies the update of `uqabench.kernels.adamw` to some columns of a row whose gradient is g."""
    mask = columns < width
    p_at, m_at = table + row * table_stride + columns, exp_avg + row * avg_stride + columns
    v_at = exp_avg_sq + row * avg_sq_stride + columns
    m = tl.load(m_at, mask=mask, other=0.0).to(tl.float32) * keep1 + g * add1
    v = tl.load(v_at, mask=mask, other=0.0).to(tl.float32) * keep2 + g * g * add2
    p = tl.load(p_at, mask=mask, other=0.0).to(tl.float32) * decay - m * rate / (tl.sqrt_rn(v) / root + eps)
    element = table.dtype.element_ty
    tl.store(p_at, p.to(element), mask=mask)
    tl.store(m_at, m.to(element), mask=mask)
    tl.store(v_at, v.to(element), mask=mask)


@triton.jit
def _mark(last_step, last_decay, row, step, decayed):
    tl.store(last_step + row, tl.cast(step, tl.int64))
    tl.store(last_decay + row, _double(decayed))


@triton.jit(do_not_specialize=_VARYING)
def sparse_adamw_pieces(
    table, exp_avg, exp_avg_sq, last_step, last_decay, partials, grads, sorted_ids, order, count,
    table_stride, avg_stride, avg_sq_stride, grad_stride, width, step, decayed, log_beta1, log_beta2,
    add1, add2, rate, root, eps, CHUNK: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Updates every row whose gradients lie in one chunk; sums those of the others to `partials`. One program for each
    index."""
    index = tl.program_id(0)
    row, length, is_first, is_last = find_piece(sorted_ids, index, count, CHUNK)
    if length > 0:
        is_whole = is_first & is_last
        keep1, keep2, decay = _factors(last_step, last_decay, row, step, decayed, log_beta1, log_beta2)
        partial = partials + partial_row(index, CHUNK).to(tl.int64) * width
        for first in range(0, width, BLOCK):
            columns = first + tl.arange(0, BLOCK)
            g = tl.zeros((BLOCK,), tl.float32)
            for i in range(0, length, UNROLL):
                for u in tl.static_range(UNROLL):
                    occurrence = tl.load(order + index + i + u, mask=i + u < length, other=0)
                    mask = (columns < width) & (i + u < length)
                    g += tl.load(grads + occurrence * grad_stride + columns, mask=mask, other=0.0).to(tl.float32)
            if is_whole:
                _update(
                    table, exp_avg, exp_avg_sq, row, table_stride, avg_stride, avg_sq_stride, columns, width, g,
                    keep1, keep2, decay, add1, add2, rate, root, eps,
                )  # fmt: skip
            else:
                tl.store(partial + columns, g, mask=columns < width)
        if is_whole:
            _mark(last_step, last_decay, row, step, decayed)


@triton.jit(do_not_specialize=_VARYING)
def sparse_adamw_long_runs(
    table, exp_avg, exp_avg_sq, last_step, last_decay, partials, sorted_ids, count,
    table_stride, avg_stride, avg_sq_stride, width, step, decayed, log_beta1, log_beta2,
    add1, add2, rate, root, eps, CHUNK: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Updates every row whose gradients lie in several chunks. One program for each chunk."""
    chunk = tl.program_id(0)
    row, first_row, last_chunk = find_long_run(sorted_ids, chunk, count, CHUNK)
    if last_chunk > 0:
        keep1, keep2, decay = _factors(last_step, last_decay, row, step, decayed, log_beta1, log_beta2)
        for first in range(0, width, BLOCK):
            columns = first + tl.arange(0, BLOCK)
            g = sum_partials(partials, first_row, chunk, last_chunk, columns, width, UNROLL)
            _update(
                table, exp_avg, exp_avg_sq, row, table_stride, avg_stride, avg_sq_stride, columns, width, g,
                keep1, keep2, decay, add1, add2, rate, root, eps,
            )  # fmt: skip
        _mark(last_step, last_decay, row, step, decayed)


def column_block(width: int) -> int:
    """How many columns of a row are in registers at once."""
    return min(512, triton.next_power_of_2(max(width, 1)))


_pieces = tuned(PIECES_CONFIGS, [], "count")(sparse_adamw_pieces)
_long_runs = tuned(LONG_RUNS_CONFIGS, [])(sparse_adamw_long_runs)


def _bits(x: float) -> int:
    return struct.unpack("<q", struct.pack("<d", x))[0]


def _log(beta: float) -> float:
    return math.log(beta) if beta > 0 else -math.inf


def launch_step(
    table: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, last_step: Tensor, last_decay: Tensor, ids: Tensor,
    grads: Tensor, step: int, decayed: float, lr: float, beta1: float, beta2: float, eps: float,
) -> None:  # fmt: skip
    """`sparse_adamw_`, arguments checked."""
    count, width = len(ids), table.shape[1]
    if count == 0:
        return
    sorted_ids, order = ids.sort(stable=True)
    partials = new_partials(count, width, ids.device)
    state = (table, exp_avg, exp_avg_sq, last_step, last_decay, partials)
    strides = (table.stride(0), exp_avg.stride(0), exp_avg_sq.stride(0))
    steps = (step, _bits(decayed), _bits(_log(beta1)), _bits(_log(beta2)))
    rates = (1 - beta1, 1 - beta2, lr / (1 - beta1**step), (1 - beta2**step) ** 0.5, eps)
    sizes = {"CHUNK": CHUNK, "BLOCK": column_block(width)}
    with on_device_of(ids):
        _pieces[(count,)](
            *state, grads, sorted_ids, order, count, *strides, grads.stride(0), width, *steps, *rates, **sizes
        )
        _long_runs[(triton.cdiv(count, CHUNK),)](*state, sorted_ids, count, *strides, width, *steps, *rates, **sizes)
