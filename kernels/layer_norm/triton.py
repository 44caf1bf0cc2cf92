"""Layer normalisation by Triton kernels (kernels/triton_norms.py): fp32, bf16 and fp16 on GPU, forward and backward."""

from __future__ import annotations

from torch import Tensor

from ..native import empty_norm, native_op, uninitialised
from .native import empty_gradients, register_gradient


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return _forward(x, weight, bias, eps)[0]


@native_op("layer_norm_triton")
def _forward(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """The output, and each row's mean and inverse deviation (2, rows); arguments are checked by the caller."""
    from ..triton_norms import norm_forward

    y, statistics = empty_norm(x, 2)
    norm_forward(y, None, statistics, x, None, weight, bias, None, eps)
    return y, statistics


@_forward.register_fake
def _(x, weight, bias, eps):
    return empty_norm(x, 2)


@native_op("layer_norm_triton_backward")
def _backward(
    grad: Tensor, x: Tensor, statistics: Tensor, weight: Tensor | None, needs_weight: bool, needs_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; those not needed are empty."""
    from ..triton_norms import norm_backward

    dx = uninitialised(x)
    return dx, *norm_backward(dx, None, grad, None, x, statistics, weight, None, needs_weight, needs_bias)


@_backward.register_fake
def _(grad, x, statistics, weight, needs_weight, needs_bias):
    return empty_gradients(x, needs_weight, needs_bias)


register_gradient(_forward, _backward)
