"""Mamba-2's scan in C++ (csrc/cpu/ssd_forward.cpp, ssd_backward.cpp): fp32 on CPU, in chunks of 64 tokens."""

from __future__ import annotations

from torch import Tensor

from ..native import call
from .operator import gradients, outputs


def forward(*inputs: Tensor | bool | None) -> tuple[Tensor | None, ...]:
    y, state, ungated = results = outputs(*inputs)
    *tensors, offsets, dt_softplus, initial_state, _, _ = inputs
    call("ssd_scan_forward", y, ungated, state, *tensors, offsets, initial_state, dt_softplus)
    return results


def backward(grad_y: Tensor, grad_state: Tensor | None, *others: Tensor | bool | None) -> tuple[Tensor | None, ...]:
    ungated, *tensors, offsets, dt_softplus, initial_state = others
    z = tensors[6]
    grad_state = None if grad_state is None else grad_state.contiguous()
    given = (grad_y.contiguous(), grad_state, None if z is None else ungated, *tensors)
    found = gradients(*given, offsets, dt_softplus, initial_state)
    call("ssd_scan_backward", *found, *given, offsets, initial_state, dt_softplus)
    return found
