"""Causal attention by the C++ kernels (csrc/cpu/causal_attention.cpp): fp32 on CPU, forward and backward.

The forward pass keeps, beside its output, one value for each query and head: the logarithm of the softmax's
denominator, from which the backward pass recomputes the weights.
"""

from __future__ import annotations

from torch import Tensor

from ..native import call, empty_like, native_op, uninitialised


def causal_attention(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, *, scale: float) -> Tensor:
    return _forward(q, k, v, offsets, scale)[0]


@native_op("causal_attention")
def _forward(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The output (T, H, Dv) and the logarithms of the denominators (T, H); arguments are checked by the caller."""
    out, log_sums = _empty(q, v)
    call("causal_attention_forward", out, log_sums, q, k, v, offsets, scale)
    return out, log_sums


def _empty(q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return uninitialised(v), q.new_empty(q.shape[0], q.shape[1])


@_forward.register_fake
def _(q, k, v, offsets, scale):
    return _empty(q, v)


@native_op("causal_attention_backward")
def _backward(
    grad: Tensor, out: Tensor, log_sums: Tensor, q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    gradients = empty_like(q, k, v)
    call("causal_attention_backward", *gradients, grad, out, log_sums, q, k, v, offsets, scale)
    return gradients


@_backward.register_fake
def _(grad, out, log_sums, q, k, v, offsets, scale):
    return empty_like(q, k, v)


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*output, *tensors)


def _differentiate(ctx, grad, _):
    dq, dk, dv = _backward(grad.contiguous(), *ctx.saved_tensors, ctx.scale)
    return dq, dk, dv, None, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)
