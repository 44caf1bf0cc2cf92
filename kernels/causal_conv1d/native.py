"""Causal convolution by the C++ kernels (csrc/cpu/causal_conv1d.cpp): fp32 on CPU, forward and backward.

Bias and SiLU are part of the one pass over x. The backward pass recomputes the input of SiLU, so that only the inputs
are kept.
"""

from __future__ import annotations

from torch import Tensor

from ..native import NativeOp, call, empty_like, native_op, uninitialised


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    *,
    activation: str | None = None,
    initial_state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    if initial_state is not None:
        initial_state = initial_state.contiguous()
    y, state = _forward(x, weight, bias, initial_state, offsets, activation == "silu", return_state)
    return (y, state) if return_state else y


@native_op("causal_conv1d")
def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    offsets: Tensor,
    is_silu: bool,
    return_state: bool,
) -> tuple[Tensor, Tensor]:
    """y (T, C) and the last state (B, C, K-1), None unless asked for; arguments are checked by the caller."""
    y, state = results = _empty(x, weight, offsets, return_state)
    call("causal_conv1d_forward", y, state, x, weight, bias, initial_state, offsets, is_silu)
    return results


def _empty(x: Tensor, weight: Tensor, offsets: Tensor, return_state: bool) -> tuple[Tensor, Tensor | None]:
    if not return_state:
        return uninitialised(x), None
    return uninitialised(x), x.new_empty(offsets.shape[0] - 1, x.shape[1], weight.shape[1] - 1)


@_forward.register_fake
def _(x, weight, bias, initial_state, offsets, is_silu, return_state):
    return _empty(x, weight, offsets, return_state)


@native_op("causal_conv1d_backward")
def _backward(
    grad: Tensor,
    grad_state: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    offsets: Tensor,
    is_silu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias and initial_state (the last empty where there is none)."""
    gradients = empty_gradients(x, weight, initial_state)
    to_initial = None if initial_state is None else gradients[3]
    inputs = (grad, grad_state, x, weight, bias, initial_state, offsets)
    call("causal_conv1d_backward", *gradients[:3], to_initial, *inputs, is_silu)
    return gradients


def empty_gradients(x: Tensor, weight: Tensor, initial_state: Tensor | None) -> tuple[Tensor, ...]:
    """For the gradients of x, weight, bias and initial_state."""
    initial = x.new_empty(0) if initial_state is None else uninitialised(initial_state)
    return *empty_like(x, weight), x.new_empty(x.shape[1]), initial


@_backward.register_fake
def _(grad, grad_state, x, weight, bias, initial_state, offsets, is_silu):
    return empty_gradients(x, weight, initial_state)


def register_gradient(forward: NativeOp, backward: NativeOp) -> None:
    """Makes `backward` the gradient of `forward`, two operators with the arguments of this module's."""

    def setup_context(ctx, inputs, output) -> None:
        *tensors, ctx.is_silu, ctx.return_state = inputs
        ctx.save_for_backward(*tensors)

    def differentiate(ctx, grad, grad_state):
        x, weight, bias, initial_state, offsets = ctx.saved_tensors
        if grad.shape[1] > 1 and grad.stride(1) != 1:
            grad = grad.contiguous()
        grad_state = grad_state.contiguous() if ctx.return_state else None
        gradients = backward(grad, grad_state, x, weight, bias, initial_state, offsets, ctx.is_silu)
        dx, dweight, dbias, dinitial = gradients
        return (
            dx,
            dweight,
            None if bias is None else dbias,
            None if initial_state is None else dinitial,
            None,
            None,
            None,
        )

    forward.register_autograd(differentiate, setup_context=setup_context)


register_gradient(_forward, _backward)
