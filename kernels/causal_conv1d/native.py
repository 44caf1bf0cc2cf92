"""Causal convolution by the C++ kernels (csrc/cpu/causal_conv1d.cpp): fp32 on CPU."""

from __future__ import annotations

from torch import Tensor

from ..native import call
from ..rows import dense_rows
from .operator import gradients, outputs


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    is_silu: bool,
    initial_state: Tensor | None,
    return_state: bool,
) -> tuple[Tensor, Tensor | None]:
    results = outputs(x, weight, bias, offsets, is_silu, initial_state, return_state)
    call("causal_conv1d_forward", *results, x, weight, bias, initial_state, offsets, is_silu)
    return results


def backward(
    grad_y: Tensor,
    grad_state: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    is_silu: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    grad_state = None if grad_state is None else grad_state.contiguous()
    arguments = (dense_rows(grad_y), grad_state, x, weight, bias, offsets, is_silu, initial_state)
    found = gradients(*arguments)
    call("causal_conv1d_backward", *found, *arguments[:5], initial_state, offsets, is_silu)
    return found
