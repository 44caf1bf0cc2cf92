"""The kernels of embedding bags: the means, each id's contribution to the table's gradient, and that gradient, dense.

A program owns one bag, or one piece of a run of equal ids (triton_runs.py), and BLOCK columns. It loops over the ids,
loading UNROLL rows at a time, and accumulates in fp32 registers without shared memory.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_runs import (
    CHUNK,
    find_long_run,
    find_piece,
    new_partials,
    partial_row,
    sum_partials,
)
from ..triton_tools import on_device_of, tuned

MEAN_CONFIGS = [triton.Config({"UNROLL": u}, num_warps=w) for u, w in ((4, 1), (8, 1), (4, 2))]
VALUES_CONFIGS = [triton.Config({}, num_warps=1)]
PIECES_CONFIGS = [triton.Config({"UNROLL": u}, num_warps=w) for u, w in ((2, 1), (4, 1), (4, 2))]
LONG_RUNS_CONFIGS = [triton.Config({"UNROLL": 8}, num_warps=1)]


def column_block(width: int) -> int:
    """The number of columns of a program."""
    return min(512, triton.next_power_of_2(max(width, 1)))


@triton.jit
def embedding_bag_mean(out, table, ids, offsets, table_stride, width, BLOCK: tl.constexpr, UNROLL: tl.constexpr):
    """out (B, width) contiguous."""
    bag = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    start, end = tl.load(offsets + bag), tl.load(offsets + bag + 1)
    total = tl.zeros((BLOCK,), tl.float32)
    for i in range(start, end, UNROLL):
        for u in tl.static_range(UNROLL):
            row = tl.load(ids + i + u, mask=i + u < end, other=0)
            mask = (columns < width) & (i + u < end)
            total += tl.load(table + row * table_stride + columns, mask=mask, other=0.0).to(tl.float32)
    mean = total / tl.maximum(end - start, 1).to(tl.float32)
    tl.store(out + bag * width + columns, mean.to(out.dtype.element_ty), mask=columns < width)


@triton.jit
def embedding_bag_values(values, grad, offsets, grad_stride, width, BLOCK: tl.constexpr):
    """values (M, width) contiguous: for each id, its bag's gradient divided by the bag's length."""
    bag = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    start, end = tl.load(offsets + bag), tl.load(offsets + bag + 1)
    g = tl.load(grad + bag * grad_stride + columns, mask=columns < width, other=0.0).to(tl.float32)
    share = (g / tl.maximum(end - start, 1).to(tl.float32)).to(values.dtype.element_ty)
    for i in range(start, end):
        tl.store(values + i * width + columns, share, mask=columns < width)


@triton.jit
def embedding_bag_pieces(
    gradient, partials, grad, sorted_ids, order, bags, offsets, count, grad_stride, width,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """The gradient's row of every run within one chunk, and the others' partial sums; a program for each index."""
    index = tl.program_id(0)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row, length, is_first, is_last = find_piece(sorted_ids, index, count, CHUNK)
    if length > 0:
        total = tl.zeros((BLOCK,), tl.float32)
        for i in range(0, length, UNROLL):
            for u in tl.static_range(UNROLL):
                is_one = i + u < length
                occurrence = tl.load(order + index + i + u, mask=is_one, other=0)
                bag = tl.load(bags + occurrence, mask=is_one, other=0)
                ids = tl.load(offsets + bag + 1) - tl.load(offsets + bag)
                mask = (columns < width) & is_one
                g = tl.load(grad + bag * grad_stride + columns, mask=mask, other=0.0).to(tl.float32)
                total += g / tl.maximum(ids, 1).to(tl.float32)
        if is_first & is_last:
            tl.store(gradient + row * width + columns, total.to(gradient.dtype.element_ty), mask=columns < width)
        else:
            partial = partial_row(index, CHUNK).to(tl.int64)
            tl.store(partials + partial * width + columns, total, mask=columns < width)


@triton.jit
def embedding_bag_long_runs(
    gradient, partials, sorted_ids, count, width, CHUNK: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr
):
    """The gradient's row of every run over several chunks; a program for each chunk."""
    chunk = tl.program_id(0)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row, first_row, last_chunk = find_long_run(sorted_ids, chunk, count, CHUNK)
    if last_chunk > 0:
        total = sum_partials(partials, first_row, chunk, last_chunk, columns, width, UNROLL)
        tl.store(gradient + row * width + columns, total.to(gradient.dtype.element_ty), mask=columns < width)


_mean = tuned(MEAN_CONFIGS, ["BLOCK"], "out")(embedding_bag_mean)
_values = tuned(VALUES_CONFIGS, [])(embedding_bag_values)
_pieces = tuned(PIECES_CONFIGS, ["BLOCK"], "count")(embedding_bag_pieces)
_long_runs = tuned(LONG_RUNS_CONFIGS, [])(embedding_bag_long_runs)


def launch_mean(out: Tensor, table: Tensor, ids: Tensor, offsets: Tensor) -> None:
    """Fills `out` (B, d)."""
    if out.numel() == 0:
        return
    width = out.shape[1]
    block = column_block(width)
    with on_device_of(out):
        _mean[(len(out), triton.cdiv(width, block))](out, table, ids, offsets, table.stride(0), width, BLOCK=block)


def launch_values(values: Tensor, grad: Tensor, offsets: Tensor) -> None:
    """Fills `values` (M, d)."""
    if values.numel() == 0:
        return
    width = values.shape[1]
    block = column_block(width)
    with on_device_of(values):
        _values[(len(grad), triton.cdiv(width, block))](values, grad, offsets, grad.stride(0), width, BLOCK=block)


def launch_gradient(gradient: Tensor, grad: Tensor, ids: Tensor, offsets: Tensor) -> None:
    """Adds the rows used to `gradient` (V, d), which is zero."""
    count, width = len(ids), gradient.shape[1]
    if count == 0 or width == 0:
        return
    block = column_block(width)
    columns = triton.cdiv(width, block)
    indices = torch.arange(count, device=ids.device)
    bags = torch.searchsorted(offsets, indices, right=True) - 1
    sorted_ids, order = ids.sort(stable=True)
    partials = new_partials(count, width, ids.device)
    sizes = {"CHUNK": CHUNK, "BLOCK": block}
    with on_device_of(ids):
        _pieces[(count, columns)](
            gradient, partials, grad, sorted_ids, order, bags, offsets, count, grad.stride(0), width, **sizes
        )
        _long_runs[(triton.cdiv(count, CHUNK), columns)](gradient, partials, sorted_ids, count, width, **sizes)
