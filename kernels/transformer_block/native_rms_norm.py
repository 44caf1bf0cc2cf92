"""rms_norm by the C++ kernels (csrc/cpu/norms.cpp): fp32 and bf16 on CPU, forward and backward."""

from __future__ import annotations

from torch import Tensor

from ..native import NativeOp, call, empty_norm, native_op, uninitialised
from ..rows import as_rows


def rms_norm(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None) -> Tensor | tuple[Tensor, Tensor]:
    return _forward(x, weight, eps)[0] if residual is None else _forward_sum(x, residual, weight, eps)[:2]


@native_op("rms_norm")
def _forward(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The output, and each row's inverse root mean square (1, rows); arguments are checked by the caller."""
    y, statistics = empty_norm(x, 1)
    call("norm_forward", as_rows(y), None, statistics, as_rows(x), None, weight, None, None, eps)
    return y, statistics


@_forward.register_fake
def _(x, weight, eps):
    return empty_norm(x, 1)


@native_op("rms_norm_sum")
def _forward_sum(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The output, the sum x + residual, and the sum's inverse root mean squares."""
    y, total, statistics = uninitialised(x), *empty_norm(x, 1)
    arguments = (as_rows(x), as_rows(residual), weight, None, None)
    call("norm_forward", as_rows(y), as_rows(total), statistics, *arguments, eps)
    return y, total, statistics


@_forward_sum.register_fake
def _(x, residual, weight, eps):
    return uninitialised(x), *empty_norm(x, 1)


@native_op("rms_norm_backward")
def _backward(
    grad: Tensor, grad_sum: Tensor | None, x: Tensor, statistics: Tensor, weight: Tensor, needs_weight: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of x (the sum where there is one, reached by `grad_sum` too) and weight, empty if not needed."""
    dx, dweight = _empty_gradients(x, needs_weight)
    outputs = (as_rows(dx), None, dweight if needs_weight else None, None)
    beside = None if grad_sum is None else as_rows(grad_sum)
    call("norm_backward", *outputs, as_rows(grad), beside, as_rows(x), statistics, weight, None)
    return dx, dweight


def _empty_gradients(x: Tensor, needs_weight: bool) -> tuple[Tensor, Tensor]:
    return uninitialised(x), x.new_empty(x.shape[-1] if needs_weight else 0)


@_backward.register_fake
def _(grad, grad_sum, x, statistics, weight, needs_weight):
    return _empty_gradients(x, needs_weight)


def register_gradients(forward: NativeOp, forward_sum: NativeOp, backward: NativeOp) -> None:
    """Makes `backward` the gradient of both, three operators with the arguments of this module's."""

    def save(ctx, inputs, output) -> None:
        x, weight, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, output[1], weight)

    def differentiate(ctx, grad, _):
        if grad is None:
            return None, None, None
        needs_weight = ctx.needs_input_grad[1]
        dx, dweight = backward(grad, None, *ctx.saved_tensors, needs_weight)
        return dx, dweight if needs_weight else None, None

    def save_sum(ctx, inputs, output) -> None:
        _, total, statistics = output
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(total, statistics, inputs[2])

    def differentiate_sum(ctx, grad, grad_sum, _):
        if grad is None:
            return grad_sum, grad_sum, None, None
        needs_weight = ctx.needs_input_grad[2]
        dx, dweight = backward(grad, grad_sum, *ctx.saved_tensors, needs_weight)
        return dx, dx, dweight if needs_weight else None, None

    forward.register_autograd(differentiate, setup_context=save)
    forward_sum.register_autograd(differentiate_sum, setup_context=save_sum)


register_gradients(_forward, _forward_sum, _backward)
