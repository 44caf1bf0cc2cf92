"""Causal convolution by the C++ kernels (csrc/cpu/causal_conv1d.cpp): fp32 on CPU."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..native import fill
from ..rows import dense_rows
from .operator import gradients, outputs


def forward(*inputs: Any) -> tuple[Tensor, Tensor | None]:
    *arguments, _ = inputs  # but return_state
    return fill("causal_conv1d_forward", outputs(*inputs), *arguments)


def backward(grad_y: Tensor, grad_state: Tensor | None, *inputs: Any) -> tuple[Tensor | None, ...]:
    grad_state = None if grad_state is None else grad_state.contiguous()
    arguments = (dense_rows(grad_y), grad_state, *inputs)
    return fill("causal_conv1d_backward", gradients(*arguments), *arguments)
