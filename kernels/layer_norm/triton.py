"""Layer normalisation by Triton kernels (kernels/triton_norms.py): fp32, bf16 and fp16 on GPU, forward and backward."""

from __future__ import annotations

import torch
from torch import Tensor

from ..native import empty_like, native_op


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return _forward(x, weight, bias, eps)[0]


@native_op("layer_norm_triton")
def _forward(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """The output, and each row's mean and inverse deviation (2, rows); arguments are checked by the caller."""
    from ..triton_norms import norm_forward

    y, statistics = _empty(x)
    norm_forward(y, None, statistics, x, None, weight, bias, None, eps)
    return y, statistics


def _empty(x: Tensor) -> tuple[Tensor, Tensor]:
    return *empty_like(x), x.new_empty(2, x.numel() // x.shape[-1], dtype=torch.float32)


@_forward.register_fake
def _(x, weight, bias, eps):
    return _empty(x)


@native_op("layer_norm_triton_backward")
def _backward(
    grad: Tensor, x: Tensor, statistics: Tensor, weight: Tensor | None, needs_weight: bool, needs_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; those not needed are empty."""
    from ..triton_norms import norm_backward

    (dx,) = empty_like(x)
    return dx, *norm_backward(dx, None, grad, None, x, statistics, weight, None, needs_weight, needs_bias)


@_backward.register_fake
def _(grad, x, statistics, weight, needs_weight, needs_bias):
    width = x.shape[-1]
    return *empty_like(x), x.new_empty(width * needs_weight), x.new_empty(width * needs_bias)


def _setup_context(ctx, inputs, output) -> None:
    x, weight, _, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, output[1], weight)


def _differentiate(ctx, grad, _):
    if grad is None:
        return None, None, None, None
    _, needs_weight, needs_bias, _ = ctx.needs_input_grad
    dx, dweight, dbias = _backward(grad, *ctx.saved_tensors, needs_weight, needs_bias)
    return dx, dweight if needs_weight else None, dbias if needs_bias else None, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)
