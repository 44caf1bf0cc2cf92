"""The selective scan by the C++ kernels (csrc/cpu/selective_scan.cpp): fp32 on CPU, forward and backward.

Lanes are channels, so that every product is one of whole vectors. The states between those that are kept are computed
again a chunk at a time, in the nearest caches. The cost is that of the multiply-adds: 9 for each vector of states
forward, 17 backward.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..native import fill
from .operator import gradients, outputs


def forward(*inputs: Any) -> tuple[Tensor | None, ...]:
    *arguments, _, _ = inputs  # but return_state and keep
    results = outputs(*inputs, "native")
    kept = results[2]
    if kept is not None:
        kept[-2:].zero_()  # see kept_shape in csrc/bindings/selective_scan.cpp
    return fill("selective_scan_forward", results, *arguments)


def backward(grad_y: Tensor, grad_state: Tensor | None, *others: Any) -> tuple[Tensor | None, ...]:
    kept, ungated, *inputs = others
    z = inputs[6]
    grad_state = None if grad_state is None else grad_state.contiguous()
    arguments = (grad_y.contiguous(), grad_state, kept, None if z is None else ungated, *inputs)
    return fill("selective_scan_backward", gradients(*arguments), *arguments)
