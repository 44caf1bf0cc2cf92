"""Embedding bags by Triton kernels (triton_kernels.py): fp32, bf16 and fp16, accumulated in fp32, forward and backward.

Every sum is in the order of occurrence (for a row of a gradient: in pieces of up to 32, and then over the pieces), so
that the bits are the same at every run. Neither gradient waits for a value from the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..native import empty_like, native_op


def embedding_bag_mean(table: Tensor, ids: Tensor, offsets: Tensor, *, sparse: bool = False) -> Tensor:
    return _forward(table, ids, offsets, sparse)


@native_op("embedding_bag_mean_triton")
def _forward(table: Tensor, ids: Tensor, offsets: Tensor, sparse: bool) -> Tensor:
    """Means (B, d); arguments are checked by the caller. `sparse` concerns the gradient only."""
    from . import triton_kernels

    out = table.new_empty(offsets.shape[0] - 1, table.shape[1])
    triton_kernels.launch_mean(out, table, ids, offsets)
    return out


@_forward.register_fake
def _(table, ids, offsets, sparse):
    return table.new_empty(offsets.shape[0] - 1, table.shape[1])


@native_op("embedding_bag_mean_triton_backward")
def _backward(grad: Tensor, table: Tensor, ids: Tensor, offsets: Tensor) -> Tensor:
    """The dense gradient of the table (V, d), of which only the shape is read."""
    from . import triton_kernels

    gradient = table.new_zeros(table.shape)
    triton_kernels.launch_gradient(gradient, grad, ids, offsets)
    return gradient


@_backward.register_fake
def _(grad, table, ids, offsets):
    return empty_like(table)[0]


@native_op("embedding_bag_mean_triton_values")
def _values(grad: Tensor, ids: Tensor, offsets: Tensor) -> Tensor:
    """What each id adds to the gradient of its row (M, d)."""
    from . import triton_kernels

    values = grad.new_empty(ids.shape[0], grad.shape[1])
    triton_kernels.launch_values(values, grad, offsets)
    return values


@_values.register_fake
def _(grad, ids, offsets):
    return grad.new_empty(ids.shape[0], grad.shape[1])


def _setup_context(ctx, inputs, output) -> None:
    table, ids, offsets, ctx.sparse = inputs
    ctx.save_for_backward(table, ids, offsets)


def _differentiate(ctx, grad):
    table, ids, offsets = ctx.saved_tensors
    if grad.shape[1] > 1 and grad.stride(1) != 1:
        grad = grad.contiguous()
    if ctx.sparse:
        values = _values(grad, ids, offsets)
        gradient = torch.sparse_coo_tensor(ids[None], values, table.shape, check_invariants=False)
    else:
        gradient = _backward(grad, table, ids, offsets)
    return gradient, None, None, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)
