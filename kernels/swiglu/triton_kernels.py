"""swiglu's Triton kernels.

A program owns ROWS x BLOCK elements (2,048, or 16 for each thread). The backward pass recomputes the gate's sigmoid
instead of keeping it. Both are bound by memory (docs/gpu.md).
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..rows import as_rows
from ..triton_tools import on_device_of


def tile(width: int) -> triton.Config:
    """The tile for rows of `width`: blocks of 512 columns waste little of 1,536 or 2,730."""
    block = min(512, max(16, triton.next_power_of_2(width)))
    return triton.Config({"ROWS": min(32, 2048 // block), "BLOCK": block}, num_warps=4, num_stages=1)


@triton.jit
def _place(rows, width, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """This program's rows and columns, and which of them exist."""
    blocks = tl.cdiv(width, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)[None, :]
    return row, column, (row < rows) & (column < width)


@triton.jit
def forward_kernel(y, gate, up, gate_stride, up_stride, rows, width, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row, column, mask = _place(rows, width, ROWS, BLOCK)
    g = tl.load(gate + row * gate_stride + column, mask, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_stride + column, mask, other=0.0).to(tl.float32)
    tl.store(y + row * width + column, (g * tl.sigmoid(g) * u).to(y.dtype.element_ty), mask)


@triton.jit
def backward_kernel(
    dgate, dup, grad, gate, up, dgate_stride, dup_stride, grad_stride, gate_stride, up_stride, rows, width,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column, mask = _place(rows, width, ROWS, BLOCK)
    grad_out = tl.load(grad + row * grad_stride + column, mask, other=0.0).to(tl.float32)
    g = tl.load(gate + row * gate_stride + column, mask, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_stride + column, mask, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(g)
    tl.store(dup + row * dup_stride + column, (grad_out * g * sigmoid).to(dup.dtype.element_ty), mask)
    grad_out *= u * sigmoid * (1.0 + g * (1.0 - sigmoid))
    tl.store(dgate + row * dgate_stride + column, grad_out.to(dgate.dtype.element_ty), mask)


def _launch(kernel: triton.JITFunction, *tensors: Tensor, contiguous: int) -> None:
    """The kernel's arguments are the tensors, the strides of all but the first few, and their size."""
    width, rows = tensors[0].shape[-1], tensors[0].numel() // tensors[0].shape[-1]
    if rows == 0:
        return
    config = tile(width)
    laid = [as_rows(x) for x in tensors]
    programs = triton.cdiv(rows, config.kwargs["ROWS"]) * triton.cdiv(width, config.kwargs["BLOCK"])
    with on_device_of(tensors[0]):
        kernel[(programs,)](*laid, *(x.stride(0) for x in laid[contiguous:]), rows, width, **config.all_kwargs())


def forward(y: Tensor, gate: Tensor, up: Tensor) -> None:
    """Writes y (..., d), contiguous."""
    _launch(forward_kernel, y, gate, up, contiguous=1)


def backward(dgate: Tensor, dup: Tensor, grad: Tensor, gate: Tensor, up: Tensor) -> None:
    """Writes dgate and dup (..., d): contiguous, or halves of what is."""
    _launch(backward_kernel, dgate, dup, grad, gate, up, contiguous=0)
