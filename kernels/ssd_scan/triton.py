"""Mamba-2's scan by Triton kernels (triton_states.py, triton_forward.py, triton_backward.py): fp32 and bf16.

Chunks have 64 tokens, and states are passed on in fp32. Matrix products are accumulated in fp32: of bf16 operands for
bf16 input, of three TF32 products for fp32 (about 21 bits; single fp32 products would spill 5 KB of registers for each
thread at these tiles). Nothing depends on the order in which programs run: the bits are the same at every run on one
kind of GPU, as long as the autotuner's choice stands, which it keeps on disk. The backward pass recomputes the states
between chunks; of the forward pass it needs y before the gate. B and C of more than 256 columns are left to plain
torch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..native import empty_like, native_op
from . import eager
from .native import register_gradient

MAX_STATES = 256  # columns of B and C that a program can hold


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
    if B.shape[2] > MAX_STATES:
        settings = {"dt_softplus": dt_softplus, "initial_state": initial_state, "return_state": return_state}
        return eager.ssd_scan(x, dt, A, B, C, D, z, dt_bias, offsets, **settings)
    A, D, dt_bias = (None if p is None else p.contiguous() for p in (A, D, dt_bias))
    initial_state = None if initial_state is None else initial_state.contiguous()
    keep = torch.is_grad_enabled() and z is not None
    y, state, _ = _forward(x, dt, A, B, C, D, z, dt_bias, offsets, initial_state, dt_softplus, keep, return_state)
    return (y, state) if return_state else y


def _outputs(x: Tensor, B: Tensor, offsets: Tensor, keep: bool, has_state: bool) -> tuple[Tensor, Tensor, Tensor]:
    state = (offsets.shape[0] - 1, *x.shape[1:], B.shape[2]) if has_state else (0,)
    return *empty_like(x), x.new_empty(state, dtype=torch.float32), x.new_empty(x.shape if keep else (0,))


@native_op("ssd_scan_triton")
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
    from . import triton_forward, triton_states

    y, state, ungated = _outputs(x, B, offsets, keep, has_state)
    final, kept = state if has_state else None, ungated if keep else None
    before = triton_states.states_between(
        x, None, B, dt, A, dt_bias, offsets, initial_state, final, reverse=False, dt_softplus=dt_softplus
    )
    triton_forward.write_outputs(y, kept, before, x, z, B, C, dt, A, D, dt_bias, offsets, dt_softplus)
    return y, state, ungated


@_forward.register_fake
def _(x, dt, A, B, C, D, z, dt_bias, offsets, initial_state, dt_softplus, keep, has_state):
    return _outputs(x, B, offsets, keep, has_state)


@native_op("ssd_scan_triton_backward")
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
    from . import triton_backward, triton_states

    before = triton_states.states_between(
        x, None, B, dt, A, dt_bias, offsets, initial_state, None, reverse=False, dt_softplus=dt_softplus
    )
    d_initial = None if initial_state is None else empty_like(initial_state)[0]
    after = triton_states.states_between(
        grad, z, C, dt, A, dt_bias, offsets, state_grad, d_initial, reverse=True, dt_softplus=dt_softplus
    )
    of_tensors = triton_backward.gradients(
        grad, ungated, before, after, x, dt, A, B, C, D, z, dt_bias, offsets, dt_softplus
    )
    inputs = (x, dt, A, B, C, D, z, dt_bias)
    results = [g.to(v.dtype) for v, g in zip(inputs, of_tensors, strict=True) if v is not None]
    return results if d_initial is None else [*results, d_initial]


@_backward.register_fake
def _(grad, state_grad, ungated, x, dt, A, B, C, D, z, dt_bias, offsets, initial_state, dt_softplus):
    return [empty_like(v)[0] for v in (x, dt, A, B, C, D, z, dt_bias, initial_state) if v is not None]


register_gradient(_forward, _backward)
