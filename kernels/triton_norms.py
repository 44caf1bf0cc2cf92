"""Normalisation of rows on the GPU: what rms_norm, layer_norm and norm_gate launch, forward and backward.

A program owns ROWS whole rows (2,048 elements, or one row where it is wider) and holds them in registers as fp32, 16
elements for each thread, so that statistics, normalisation and gate take one pass over memory. The backward pass reads
the row again and recomputes the normalised values from the stored statistics. With weights to differentiate it is
persistent: a program walks over its rows, the next of which are on their way to shared memory meanwhile, accumulates
their part of the weights' gradients in registers and writes that partial sum. The last program of a group to come so
far adds the group's sums, and the last group the groups' sums. A counter tells who is last; the order of additions
follows from the places of the sums alone, so that the bits are the same at every run on one kind of GPU. All of them
are bound by memory (docs/gpu.md).
"""

from __future__ import annotations

from functools import cache
from math import isqrt

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import philox
from .memory import is_captured
from .rows import as_rows
from .triton_tools import architecture, on_device_of, programs

COUNTERS = 256
"""One for each group of programs that share rows, and one for the groups: enough for 65,000 programs."""


def tile(width: int) -> triton.Config:
    """The tile for rows of `width`. It decides the order of sums, so it depends on nothing else."""
    block = max(16, triton.next_power_of_2(width))
    rows = min(32, max(1, 2048 // block))
    return triton.Config({"ROWS": rows, "BLOCK": block}, num_warps=min(16, max(1, rows * block // 512)), num_stages=1)


def persistent_tile(width: int) -> triton.Config:
    """The tile of the backward pass that walks over rows: the same, with the next two on their way to shared memory
    where that has room for them. (With one, Triton begins its copy when the tile before is done.) A multiprocessor has
    128 registers for each thread of 16 warps."""
    config = tile(width)
    config.kwargs["STAGES"] = 1
    if config.kwargs["BLOCK"] <= 4096:
        config.kwargs["STAGES"], config.maxnreg = 3, 128
    return config


@triton.jit
def _is_kept(seed, row, threshold, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """(ROWS, BLOCK), by the rule of kernels/philox.py: one counter serves the 8 elements of a 16-byte load, because its
    ten rounds of integer products for each would take longer than loading them."""
    group = tl.arange(0, BLOCK // 8)[None, :].to(tl.uint32) + tl.zeros((ROWS, 1), tl.uint32)
    rows = row[:, None].to(tl.uint32) + tl.zeros((1, BLOCK // 8), tl.uint32)
    a, b, c, d = tl.philox(tl.load(seed), group, rows, group * 0, group * 0)
    words = tl.join(tl.join(a, c), tl.join(b, d))
    halves = tl.join(words & 0xFFFF, words >> 16).to(tl.int32)
    return halves.reshape(ROWS, BLOCK) >= threshold


@triton.jit
def forward_kernel(
    y, total, statistics, x, residual, weight, bias, gate, seed,
    x_stride, residual_stride, gate_stride, rows, width, eps, threshold, scale,
    IS_CENTRED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    in_row = column < width
    mask = (row < rows)[:, None] & in_row[None, :]
    values = tl.load(x + row[:, None] * x_stride + column[None, :], mask, other=0.0).to(tl.float32)
    out_index = row[:, None] * width + column[None, :]
    if residual is not None:
        beside = tl.load(residual + row[:, None] * residual_stride + column[None, :], mask, other=0.0)
        rounded = (values + beside.to(tl.float32)).to(total.dtype.element_ty)
        tl.store(total + out_index, rounded, mask)
        values = rounded.to(tl.float32)
    if IS_CENTRED:
        mean = tl.sum(values, axis=1) / width
        tl.store(statistics + row, mean, row < rows)
        values = tl.where(in_row[None, :], values - mean[:, None], 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(values * values, axis=1) / width + eps)
    tl.store(statistics + (rows * IS_CENTRED + row), inverse, row < rows)
    values *= inverse[:, None]
    if weight is not None:
        values *= tl.load(weight + column, in_row, other=0.0).to(tl.float32)[None, :]
    if bias is not None:
        values += tl.load(bias + column, in_row, other=0.0).to(tl.float32)[None, :]
    if gate is not None:
        values *= tl.load(gate + row[:, None] * gate_stride + column[None, :], mask, other=0.0).to(tl.float32)
    if seed is not None:
        values = tl.where(_is_kept(seed, row, threshold, ROWS, BLOCK), values * scale, 0.0)
    tl.store(y + out_index, values.to(y.dtype.element_ty), mask)


@triton.jit
def _add_up(total, sums, first, count, width, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Writes the sum of `count` rows of `sums` from `first` on, added in an order that follows from their number. They
    come from the L2 cache: other programs wrote them."""
    column = tl.arange(0, BLOCK)
    in_row = column < width
    added = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, count, ROWS):
        row = start + tl.arange(0, ROWS)
        index = (first + row).to(tl.int64)[:, None] * width + column[None, :]
        mask = (row < count)[:, None] & in_row[None, :]
        added += tl.load(sums + index, mask, other=0.0, cache_modifier=".cg")
    tl.store(total + column, tl.sum(added, axis=0).to(total.dtype.element_ty), in_row)


@triton.jit
def _is_last(counter, others):
    """Whether `others` programs have been here before, whose writes can be read then. The last resets the counter."""
    tl.debug_barrier()  # All threads have written before one of them counts.
    is_last = tl.atomic_add(counter, 1, sem="acq_rel") == others
    if is_last:
        tl.store(counter, 0)
    return is_last


@triton.jit
def backward_kernel(
    dx, update, dgate, dweight, dbias, weight_sums, bias_sums, counters,
    grad, grad_sum, x, statistics, weight, gate, gate_input, seed,
    dgate_stride, grad_stride, grad_sum_stride, x_stride, gate_stride, rows, width, group, threshold, scale,
    IS_CENTRED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr = 1,
):  # fmt: skip
    column = tl.arange(0, BLOCK)
    in_row = column < width
    if weight is not None:
        factor = tl.load(weight + column, in_row, other=0.0).to(tl.float32)[None, :]
    weight_sum = tl.zeros((ROWS, BLOCK), tl.float32)
    bias_sum = tl.zeros((ROWS, BLOCK), tl.float32)
    for tile_start in tl.range(tl.program_id(0) * ROWS, rows, tl.num_programs(0) * ROWS, num_stages=STAGES):
        row = (tile_start + tl.arange(0, ROWS)).to(tl.int64)
        is_row = row < rows
        mask = is_row[:, None] & in_row[None, :]
        grad_out = tl.load(grad + row[:, None] * grad_stride + column[None, :], mask, other=0.0).to(tl.float32)
        values = tl.load(x + row[:, None] * x_stride + column[None, :], mask, other=0.0).to(tl.float32)
        if seed is not None:
            grad_out = tl.where(_is_kept(seed, row, threshold, ROWS, BLOCK), grad_out * scale, 0.0)
        out_index = row[:, None] * width + column[None, :]
        inverse = tl.load(statistics + (rows * IS_CENTRED + row), is_row, other=0.0)[:, None]
        if IS_CENTRED:
            values -= tl.load(statistics + row, is_row, other=0.0)[:, None]
            values = tl.where(mask, values, 0.0)
        values *= inverse
        if weight_sums is not None:
            weight_sum += grad_out * values
        if bias_sums is not None:
            bias_sum += grad_out
        if weight is not None:
            grad_out *= factor
        if gate is not None:
            if dgate is not None:
                gate_grad = grad_out * values
                gate_index = row[:, None] * dgate_stride + column[None, :]
                if gate_input is not None:
                    given = tl.load(gate_input + gate_index, mask, other=0.0).to(tl.float32)
                    share = tl.sigmoid(given)
                    gate_grad *= share * (1.0 + given * (1.0 - share))
                tl.store(dgate + gate_index, gate_grad.to(dgate.dtype.element_ty), mask)
            grad_out *= tl.load(gate + row[:, None] * gate_stride + column[None, :], mask, other=0.0).to(tl.float32)
        result = grad_out - values * (tl.sum(grad_out * values, axis=1) / width)[:, None]
        if IS_CENTRED:
            result -= (tl.sum(grad_out, axis=1) / width)[:, None]
        result *= inverse
        if grad_sum is not None:
            beside = tl.load(grad_sum + row[:, None] * grad_sum_stride + column[None, :], mask, other=0.0)
            result += beside.to(tl.float32)
        tl.store(dx + out_index, result.to(dx.dtype.element_ty), mask)
        if update is not None:
            tl.store(update + out_index, result.to(update.dtype.element_ty), mask)
    if counters is not None:
        program, programs = tl.program_id(0), tl.num_programs(0)
        own, groups = program // group, tl.cdiv(programs, group)
        sums_start = program.to(tl.int64) * width
        group_start = (programs + own).to(tl.int64) * width
        if weight_sums is not None:
            tl.store(weight_sums + sums_start + column, tl.sum(weight_sum, axis=0), in_row)
        if bias_sums is not None:
            tl.store(bias_sums + sums_start + column, tl.sum(bias_sum, axis=0), in_row)
        count = tl.minimum(group, programs - own * group)
        if _is_last(counters + own, count - 1):
            if weight_sums is not None:
                _add_up(weight_sums + group_start, weight_sums, own * group, count, width, 2 * ROWS, BLOCK)
            if bias_sums is not None:
                _add_up(bias_sums + group_start, bias_sums, own * group, count, width, 2 * ROWS, BLOCK)
            if _is_last(counters + groups, groups - 1):
                if weight_sums is not None:
                    _add_up(dweight, weight_sums, programs, groups, width, 2 * ROWS, BLOCK)
                if bias_sums is not None:
                    _add_up(dbias, bias_sums, programs, groups, width, 2 * ROWS, BLOCK)


def norm_forward(
    y: Tensor,
    total: Tensor | None,
    statistics: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    gate: Tensor | None,
    eps: float,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
) -> None:
    """Writes y (..., d), `total` = x + residual, and `statistics` fp32: (2, rows) of means and inverse deviations, or
    (1, rows) for inverse root mean squares. y and total are contiguous."""
    width, rows = x.shape[-1], x.numel() // x.shape[-1]
    if rows == 0:
        return
    config = tile(width)
    x, residual, gate = (None if part is None else as_rows(part) for part in (x, residual, gate))
    with on_device_of(x):
        forward_kernel[(triton.cdiv(rows, config.kwargs["ROWS"]),)](
            y, total, statistics, x, residual, weight, bias, gate, seed,
            x.stride(0), _row_stride(residual), _row_stride(gate), rows, width, eps,
            philox.threshold(dropout_p), philox.scale(dropout_p),
            IS_CENTRED=statistics.shape[0] == 2, **config.all_kwargs(),
        )  # fmt: skip


def norm_backward(
    dx: Tensor,
    dgate: Tensor | None,
    grad: Tensor,
    grad_sum: Tensor | None,
    x: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    gate: Tensor | None,
    needs_weight: bool = False,
    needs_bias: bool = False,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
    gate_input: Tensor | None = None,
    update: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Writes dx, contiguous, the same into `update` in the dtype of that, and dgate, whose rows may be strided; returns
    the gradients of weight and bias, (d,) in x's dtype, empty if not needed. `x` is what was normalised; `grad_sum`,
    the gradient that reaches it other than through y, is added to dx. With `gate_input`, laid out as dgate, the gate is
    its SiLU, and dgate is its gradient.
    """
    width, rows = x.shape[-1], x.numel() // x.shape[-1]
    needed = (needs_weight, needs_bias)
    found = tuple([(x.new_empty if rows else x.new_zeros)(width if is_needed else 0) for is_needed in needed])
    if rows == 0:
        return found
    config = persistent_tile(width) if any(needed) else tile(width)
    tiles = triton.cdiv(rows, config.kwargs["ROWS"])
    if any(needed):
        warps = 16 if architecture(x.device) == 90 else 12  # an A100 has less shared memory
        tiles = min(tiles, programs(x, max(1, warps // config.num_warps)))
    group = isqrt(tiles - 1) + 1  # as many groups as programs in one, nearly
    sums = [x.new_empty(tiles + group, width, dtype=torch.float32) if is_needed else None for is_needed in needed]
    grad, grad_sum, x, gate = (None if part is None else as_rows(part) for part in (grad, grad_sum, x, gate))
    with on_device_of(x):
        backward_kernel[(tiles,)](
            dx, update, dgate, *found, *sums, _counters(x) if any(needed) else None,
            grad, grad_sum, x, statistics, weight, gate, gate_input, seed,
            0 if dgate is None else dgate.view(rows, width).stride(0),
            grad.stride(0), _row_stride(grad_sum), x.stride(0), _row_stride(gate), rows, width, group,
            philox.threshold(dropout_p), philox.scale(dropout_p),
            IS_CENTRED=statistics.shape[0] == 2, **config.all_kwargs(),
        )  # fmt: skip
    return found


def _counters(x: Tensor) -> Tensor:
    """Zeros, int32, for launches on x's device and current stream, each of which leaves zeros. A captured graph has its
    own, since it may run beside eager calls."""
    if is_captured(x):
        return x.new_zeros(COUNTERS, dtype=torch.int32)
    return _kept_counters(x.device, torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else 0)


@cache
def _kept_counters(device: torch.device, stream: int) -> Tensor:
    return torch.zeros(COUNTERS, dtype=torch.int32, device=device)


def _row_stride(rows: Tensor | None) -> int:
    return 0 if rows is None else rows.stride(0)
