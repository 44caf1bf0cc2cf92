"""Causal convolution by Triton kernels (triton_forward.py, triton_backward.py): fp32 and bf16, accumulated in fp32.

Bias and SiLU are part of the one pass over x. The backward pass recomputes the input of SiLU, so that only the inputs
are kept. The weights' gradients are added in an order fixed by the offsets: the bits are the same at every run on one
kind of GPU, as long as the autotuner's choice stands, which it keeps on disk.
"""

from __future__ import annotations

from torch import Tensor

from ..native import empty_like, native_op
from .native import empty_gradients, register_gradient


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
    weight = weight.contiguous()
    if initial_state is not None:
        initial_state = initial_state.contiguous()
    y, state = _forward(x, weight, bias, initial_state, offsets, activation == "silu", return_state)
    return (y, state) if return_state else y


@native_op("causal_conv1d_triton")
def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    offsets: Tensor,
    is_silu: bool,
    return_state: bool,
) -> tuple[Tensor, Tensor]:
    """y (T, C) and the last state (B, C, K-1), empty unless asked for; arguments are checked by the caller."""
    from . import triton_forward

    y, state = _empty(x, weight, offsets, return_state)
    triton_forward.convolve(y, x, weight, bias, initial_state, offsets, is_silu)
    if return_state:
        triton_forward.write_state(state, x, initial_state, offsets)
    return y, state


def _empty(x: Tensor, weight: Tensor, offsets: Tensor, return_state: bool) -> tuple[Tensor, Tensor]:
    shape = (offsets.shape[0] - 1, x.shape[1], weight.shape[1] - 1) if return_state else (0,)
    return *empty_like(x), x.new_empty(shape)


@_forward.register_fake
def _(x, weight, bias, initial_state, offsets, is_silu, return_state):
    return _empty(x, weight, offsets, return_state)


@native_op("causal_conv1d_triton_backward")
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
    from . import triton_backward

    dx, dweight, dbias, dinitial = empty_gradients(x, weight, initial_state)
    inner, partials = triton_backward.weight_gradients(grad, x, weight, bias, initial_state, offsets, is_silu)
    dweight.copy_(partials[:, 1:].sum(0).t())
    dbias.copy_(partials[:, 0].sum(0))
    triton_backward.input_gradient(dx, inner, weight, grad_state, offsets)
    if initial_state is not None:
        triton_backward.state_gradient(dinitial, inner, weight, grad_state, offsets)
    return dx, dweight, dbias, dinitial


@_backward.register_fake
def _(grad, grad_state, x, weight, bias, initial_state, offsets, is_silu):
    return empty_gradients(x, weight, initial_state)


register_gradient(_forward, _backward)
