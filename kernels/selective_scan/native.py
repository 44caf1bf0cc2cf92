"""The selective scan by the C++ kernels (csrc/cpu/selective_scan.cpp): fp32 on CPU, forward and backward.

Lanes are channels, so that every product is one of whole vectors. The forward pass keeps a state every 32 tokens, and
the backward pass recomputes those between, a chunk at a time, in the nearest caches. The cost is that of the
multiply-adds: 9 for each vector of states forward, 17 backward.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..native import NativeOp, call, native_op

_CHUNK = 32  # scan_chunk of csrc/cpu/selective_scan.h


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    offsets: Tensor,
    *,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    y, state, _, _ = _forward(*tensors, offsets, delta_softplus, return_state, keep)
    return (y, state) if return_state else y


@native_op("selective_scan")
def _forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    offsets: Tensor,
    delta_softplus: bool,
    return_state: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, the state if asked for, and what backward needs if `keep`: a state every _CHUNK tokens, y before its gate.

    What is not needed is None. Arguments are checked by the caller.
    """
    outputs = _outputs(u, A, z, offsets, return_state, keep)
    if keep:
        outputs[2][-2:].zero_()  # for torch.export: see kept_shape in csrc/bindings/selective_scan.cpp
    call(
        "selective_scan_forward",
        *outputs,
        *(u, delta, A, B, C, D, z, delta_bias, None if initial_state is None else initial_state.contiguous()),
        offsets,
        delta_softplus,
    )
    return outputs


def _outputs(
    u: Tensor, A: Tensor, z: Tensor | None, offsets: Tensor, return_state: bool, keep: bool
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    tokens, channels = u.shape
    states = A.shape[1]
    return (
        u.new_empty(tokens, channels),
        u.new_empty(offsets.shape[0] - 1, channels, states) if return_state else None,
        u.new_empty(tokens // _CHUNK + 2, states, channels) if keep else None,
        u.new_empty(tokens, channels) if keep and z is not None else None,
    )


@_forward.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, initial_state, offsets, delta_softplus, return_state, keep):
    return _outputs(u, A, z, offsets, return_state, keep)


@native_op("selective_scan_backward")
def _backward(
    grad: Tensor,
    grad_state: Tensor | None,
    kept: Tensor,
    ungated: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    offsets: Tensor,
    delta_softplus: bool,
) -> list[Tensor]:
    """Gradients of the differentiable inputs that there are, in their order."""
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    gradients = empty_gradients(*tensors)
    call(
        "selective_scan_backward",
        *gradients,
        grad,
        grad_state,
        kept,
        None if z is None else ungated,
        *tensors[:-1],
        None if initial_state is None else initial_state.contiguous(),
        offsets,
        delta_softplus,
    )
    return [g for g in gradients if g is not None]


def empty_gradients(*tensors: Tensor | None) -> list[Tensor | None]:
    """For the gradient of each, where it is there."""
    return [None if x is None else torch.empty_like(x, memory_format=torch.contiguous_format) for x in tensors]


@_backward.register_fake
def _(grad, grad_state, kept, ungated, u, delta, A, B, C, D, z, delta_bias, initial_state, offsets, delta_softplus):
    return [g for g in empty_gradients(u, delta, A, B, C, D, z, delta_bias, initial_state) if g is not None]


def register_gradient(forward: NativeOp, backward: NativeOp) -> None:
    """Makes `backward` the gradient of `forward`, two operators with the arguments of this module's.

    What forward returns beside y and the state goes to backward, behind their gradients.
    """

    def setup_context(ctx, inputs, output) -> None:
        *tensors, ctx.delta_softplus, ctx.return_state, _ = inputs
        kept = output[2:]
        ctx.kept = len(kept)
        ctx.save_for_backward(*kept, *tensors)

    def differentiate(ctx, grad, grad_state, *_):
        tensors = ctx.saved_tensors[ctx.kept :]
        grad_state = grad_state.contiguous() if ctx.return_state else None
        gradients = iter(backward(grad.contiguous(), grad_state, *ctx.saved_tensors, ctx.delta_softplus))
        differentiable = tensors[:-1]  # but the offsets
        return *(None if x is None else next(gradients) for x in differentiable), None, None, None, None

    forward.register_autograd(differentiate, setup_context=setup_context)


register_gradient(_forward, _backward)
