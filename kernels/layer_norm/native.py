"""Layer normalisation by the C++ kernels (csrc/cpu/norms.cpp): fp32 and bf16 on CPU, forward and backward."""

from __future__ import annotations

from torch import Tensor

from ..native import NativeOp, call, empty_norm, native_op, uninitialised
from ..rows import as_rows


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return _forward(x, weight, bias, eps)[0]


@native_op("layer_norm")
def _forward(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """The output, and each row's mean and inverse deviation (2, rows); arguments are checked by the caller."""
    y, statistics = empty_norm(x, 2)
    call("norm_forward", as_rows(y), None, statistics, as_rows(x), None, weight, bias, None, eps)
    return y, statistics


@_forward.register_fake
def _(x, weight, bias, eps):
    return empty_norm(x, 2)


@native_op("layer_norm_backward")
def _backward(
    grad: Tensor, x: Tensor, statistics: Tensor, weight: Tensor | None, needs_weight: bool, needs_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; those not needed are empty."""
    dx, dweight, dbias = empty_gradients(x, needs_weight, needs_bias)
    parameters = (dweight if needs_weight else None, dbias if needs_bias else None)
    call("norm_backward", as_rows(dx), None, *parameters, as_rows(grad), None, as_rows(x), statistics, weight, None)
    return dx, dweight, dbias


def empty_gradients(x: Tensor, needs_weight: bool, needs_bias: bool) -> tuple[Tensor, Tensor, Tensor]:
    """For the gradients of x, weight and bias; without elements where one is not needed."""
    width = x.shape[-1]
    return uninitialised(x), x.new_empty(width if needs_weight else 0), x.new_empty(width if needs_bias else 0)


@_backward.register_fake
def _(grad, x, statistics, weight, needs_weight, needs_bias):
    return empty_gradients(x, needs_weight, needs_bias)


def register_gradient(forward: NativeOp, backward: NativeOp) -> None:
    """Makes `backward` the gradient of `forward`, two operators with the arguments of this module's."""

    def setup_context(ctx, inputs, output) -> None:
        x, weight, _, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, output[1], weight)

    def differentiate(ctx, grad, _):
        if grad is None:
            return None, None, None, None
        _, needs_weight, needs_bias, _ = ctx.needs_input_grad
        dx, dweight, dbias = backward(grad, *ctx.saved_tensors, needs_weight, needs_bias)
        return dx, dweight if needs_weight else None, dbias if needs_bias else None, None

    forward.register_autograd(differentiate, setup_context=setup_context)


register_gradient(_forward, _backward)
