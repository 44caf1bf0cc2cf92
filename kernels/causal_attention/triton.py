"""Causal attention by Triton kernels (triton_forward.py, triton_backward.py): fp32, bf16 and fp16, accumulated in fp32.

As in native.py, the forward pass keeps one value for each query and head, from which the backward pass recomputes the
weights. Results do not depend on how programs are scheduled: the bits are the same at every run on one kind of GPU, as
long as the autotuner's choice stands, which it keeps on disk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..native import empty_like, native_op


def causal_attention(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, *, scale: float) -> Tensor:
    return _forward(q, k, v, offsets, scale)[0]


@native_op("causal_attention_triton")
def _forward(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The output (T, H, Dv) and log2 of the softmax denominators, fp32 (H, T); arguments are checked by the caller."""
    from . import triton_forward

    out, log_sums = _empty(q, v)
    triton_forward.launch_forward(out, log_sums, q, k, v, offsets, scale)
    return out, log_sums


def _empty(q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return *empty_like(v), q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)


@_forward.register_fake
def _(q, k, v, offsets, scale):
    return _empty(q, v)


@native_op("causal_attention_triton_backward")
def _backward(
    grad: Tensor, out: Tensor, log_sums: Tensor, q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    from . import triton_backward

    gradients = empty_like(q, k, v)
    triton_backward.launch_backward(*gradients, grad, out, log_sums, q, k, v, offsets, scale)
    return gradients


@_backward.register_fake
def _(grad, out, log_sums, q, k, v, offsets, scale):
    return empty_like(q, k, v)


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*output, *tensors)


def _differentiate(ctx, grad, _):
    grad = grad if grad.stride(-1) == 1 else grad.contiguous()
    dq, dk, dv = _backward(grad, *ctx.saved_tensors, ctx.scale)
    return dq, dk, dv, None, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)
