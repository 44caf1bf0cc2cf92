"""rms_norm by Triton kernels (kernels/triton_norms.py): fp32, bf16 and fp16 on GPU, forward and backward."""

from __future__ import annotations

from torch import Tensor

from ..native import empty_like, empty_norm, native_op
from .native_rms_norm import register_gradients


def rms_norm(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None) -> Tensor | tuple[Tensor, Tensor]:
    return _forward(x, weight, eps)[0] if residual is None else _forward_sum(x, residual, weight, eps)[:2]


@native_op("rms_norm_triton")
def _forward(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The output, and each row's inverse root mean square (1, rows); arguments are checked by the caller."""
    from ..triton_norms import norm_forward

    y, statistics = empty_norm(x, 1)
    norm_forward(y, None, statistics, x, None, weight, None, None, eps)
    return y, statistics


@_forward.register_fake
def _(x, weight, eps):
    return empty_norm(x, 1)


@native_op("rms_norm_sum_triton")
def _forward_sum(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The output, the sum x + residual, and the sum's inverse root mean squares."""
    from ..triton_norms import norm_forward

    y, total, statistics = *empty_like(x), *empty_norm(x, 1)
    norm_forward(y, total, statistics, x, residual, weight, None, None, eps)
    return y, total, statistics


@_forward_sum.register_fake
def _(x, residual, weight, eps):
    return *empty_like(x), *empty_norm(x, 1)


@native_op("rms_norm_triton_backward")
def _backward(
    grad: Tensor, grad_sum: Tensor | None, x: Tensor, statistics: Tensor, weight: Tensor, needs_weight: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of x (the sum where there is one, reached by `grad_sum` too) and weight, empty if not needed."""
    from ..triton_norms import norm_backward

    (dx,) = empty_like(x)
    return dx, norm_backward(dx, None, grad, grad_sum, x, statistics, weight, None, needs_weight)[0]


@_backward.register_fake
def _(grad, grad_sum, x, statistics, weight, needs_weight):
    return *empty_like(x), x.new_empty(x.shape[-1] if needs_weight else 0)


register_gradients(_forward, _forward_sum, _backward)
