"""Mamba-2's scan in C++ (csrc/cpu/ssd_forward.cpp, ssd_backward.cpp): fp32 on CPU, in chunks of 64 tokens."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..native import fill
from .operator import gradients, outputs


def forward(*inputs: Any) -> tuple[Tensor | None, ...]:
    *arguments, _, _ = inputs  # but return_state and keep
    return fill("ssd_scan_forward", outputs(*inputs), *arguments)


def backward(grad_y: Tensor, grad_state: Tensor | None, *others: Any) -> tuple[Tensor | None, ...]:
    ungated, *inputs = others
    z = inputs[6]
    grad_state = None if grad_state is None else grad_state.contiguous()
    arguments = (grad_y.contiguous(), grad_state, None if z is None else ungated, *inputs)
    return fill("ssd_scan_backward", gradients(*arguments), *arguments)
