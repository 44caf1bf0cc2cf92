"""The selective scan by the C++ kernels (csrc/cpu/selective_scan.cpp): fp32 on CPU, forward and backward.

Lanes are channels, so that every product is one of whole vectors. The states between those that are kept are computed
again a chunk at a time, in the nearest caches. The cost is that of the multiply-adds: 9 for each vector of states
forward, 17 backward.
"""

from __future__ import annotations

from torch import Tensor

from ..native import call
from .operator import gradients, outputs


def forward(*inputs: Tensor | bool | None) -> tuple[Tensor | None, ...]:
    results = outputs(*inputs, "native")
    *tensors, offsets, delta_softplus, initial_state, _, _ = inputs
    kept = results[2]
    if kept is not None:
        kept[-2:].zero_()  # see kept_shape in csrc/bindings/selective_scan.cpp
    call("selective_scan_forward", *results, *tensors, initial_state, offsets, delta_softplus)
    return results


def backward(grad_y: Tensor, grad_state: Tensor | None, *others: Tensor | bool | None) -> tuple[Tensor | None, ...]:
    kept, ungated, *tensors, offsets, delta_softplus, initial_state = others
    z = tensors[6]
    grad_state = None if grad_state is None else grad_state.contiguous()
    given = (grad_y.contiguous(), grad_state, kept, None if z is None else ungated, *tensors)
    found = gradients(*given, offsets, delta_softplus, initial_state)
    call("selective_scan_backward", *found, *given, initial_state, offsets, delta_softplus)
    return found
