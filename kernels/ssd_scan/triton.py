"""Mamba-2's scan by Triton kernels (triton_states.py, triton_forward.py, triton_backward.py): fp32 and bf16.

Chunks have 64 tokens, and states are passed on in fp32. Matrix products are accumulated in fp32: of bf16 operands for
bf16 input, of three TF32 products for fp32 (about 21 bits; single fp32 products would spill 5 KB of registers for each
thread at these tiles). Nothing depends on the order in which programs run: the bits are the same at every run on one
kind of GPU, as long as the autotuner's choice stands, which it keeps on disk.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..results import uninitialised
from . import triton_backward, triton_forward, triton_states
from .operator import outputs


def forward(*inputs: Any) -> tuple[Tensor | None, ...]:
    x, dt, A, B, C, D, z, dt_bias, offsets, dt_softplus, initial_state, _, _ = inputs
    y, state, ungated = results = outputs(*inputs)
    before = triton_states.states_between(
        x, None, B, dt, A, dt_bias, offsets, initial_state, state, reverse=False, dt_softplus=dt_softplus
    )
    triton_forward.write_outputs(y, ungated, before, x, z, B, C, dt, A, D, dt_bias, offsets, dt_softplus)
    return results


def backward(grad_y: Tensor, grad_state: Tensor | None, *others: Any) -> tuple[Tensor | None, ...]:
    ungated, x, dt, A, B, C, D, z, dt_bias, offsets, dt_softplus, initial_state = others
    grad_y = grad_y.contiguous()
    grad_state = None if grad_state is None else grad_state.contiguous()
    before = triton_states.states_between(
        x, None, B, dt, A, dt_bias, offsets, initial_state, None, reverse=False, dt_softplus=dt_softplus
    )
    d_initial = None if initial_state is None else uninitialised(initial_state)
    after = triton_states.states_between(
        grad_y, z, C, dt, A, dt_bias, offsets, grad_state, d_initial, reverse=True, dt_softplus=dt_softplus
    )
    of_tensors = triton_backward.gradients(
        grad_y, ungated, before, after, x, dt, A, B, C, D, z, dt_bias, offsets, dt_softplus
    )
    inputs = (x, dt, A, B, C, D, z, dt_bias)
    found = [None if v is None else g.to(v.dtype) for v, g in zip(inputs, of_tensors, strict=True)]
    return *found, d_initial
