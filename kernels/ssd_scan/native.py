"""Mamba-2's scan in C++ (csrc/cpu/ssd_forward.cpp, ssd_backward.cpp): fp32 on CPU, in chunks of 64 tokens.

The backward pass recomputes the states between chunks; of the forward pass it needs y before the gate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..native import NativeOp, call, native_op, uninitialised


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    offsets: Tensor,
    *,
    dt_softplus: bool = True,
    initial_state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    A = A.contiguous()
    D = None if D is None else D.contiguous()
    dt_bias = None if dt_bias is None else dt_bias.contiguous()
    initial_state = None if initial_state is None else initial_state.contiguous()
    keep = torch.is_grad_enabled() and z is not None
    y, state, _ = _forward(x, dt, A, B, C, D, z, dt_bias, offsets, initial_state, dt_softplus, keep, return_state)
    return (y, state) if return_state else y


def _outputs(
    x: Tensor, B: Tensor, offsets: Tensor, keep: bool, has_state: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    state = x.new_empty(offsets.shape[0] - 1, *x.shape[1:], B.shape[2]) if has_state else None
    return uninitialised(x), state, uninitialised(x) if keep else None


@native_op("ssd_scan")
def _forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    offsets: Tensor,
    initial_state: Tensor | None,
    dt_softplus: bool,
    keep: bool,
    has_state: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, if `has_state` the final state, and for the gradient of z, if `keep`, y before the gate."""
    y, state, ungated = results = _outputs(x, B, offsets, keep, has_state)
    inputs = (x, dt, A, B, C, D, z, dt_bias, offsets, initial_state)
    call("ssd_scan_forward", y, ungated, state, *inputs, dt_softplus)
    return results


@_forward.register_fake
def _(x, dt, A, B, C, D, z, dt_bias, offsets, initial_state, dt_softplus, keep, has_state):
    return _outputs(x, B, offsets, keep, has_state)


@native_op("ssd_scan_backward")
def _backward(
    grad: Tensor,
    state_grad: Tensor | None,
    ungated: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    offsets: Tensor,
    initial_state: Tensor | None,
    dt_softplus: bool,
) -> list[Tensor]:
    """Gradients of x, dt, A, B, C, D, z, dt_bias and initial_state, without those of absent inputs."""
    inputs = (x, dt, A, B, C, D, z, dt_bias, initial_state)
    gradients = [None if v is None else uninitialised(v) for v in inputs]
    given = (grad, state_grad, None if z is None else ungated)
    call("ssd_scan_backward", *gradients, *given, *inputs[:8], offsets, initial_state, dt_softplus)
    return [g for g in gradients if g is not None]


@_backward.register_fake
def _(grad, state_grad, ungated, x, dt, A, B, C, D, z, dt_bias, offsets, initial_state, dt_softplus):
    return [uninitialised(v) for v in (x, dt, A, B, C, D, z, dt_bias, initial_state) if v is not None]


def register_gradient(forward: NativeOp, backward: NativeOp) -> None:
    """Makes `backward` the gradient of `forward`, two operators with the arguments of this module's."""

    def setup_context(ctx, inputs, output) -> None:
        *tensors, ctx.dt_softplus, _, _ = inputs
        ctx.save_for_backward(output[2], *tensors)
        ctx.set_materialize_grads(False)

    def differentiate(ctx, grad, state_grad, _):
        ungated, *tensors = ctx.saved_tensors
        grad = torch.zeros_like(tensors[0]) if grad is None else grad
        state_grad = None if state_grad is None else state_grad.contiguous()
        arguments = (grad.contiguous(), state_grad, ungated, *tensors, ctx.dt_softplus)
        gradients = iter(backward(*arguments))
        *of_tensors, initial_state = (None if v is None else next(gradients) for v in (*tensors[:8], tensors[9]))
        return *of_tensors, None, initial_state, None, None, None

    forward.register_autograd(differentiate, setup_context=setup_context)


register_gradient(_forward, _backward)
