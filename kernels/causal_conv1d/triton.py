"""Causal convolution by Triton kernels (triton_forward.py, triton_backward.py): fp32 and bf16, accumulated in fp32.

The weights' gradients are added in an order fixed by the offsets: the bits are the same at every run on one kind of
GPU, as long as the autotuner's choice stands, which it keeps on disk.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..rows import dense_rows
from . import triton_backward, triton_forward
from .operator import gradients, outputs


def forward(*inputs: Any) -> tuple[Tensor, Tensor | None]:
    x, weight, bias, offsets, is_silu, initial_state, _ = inputs
    y, state = results = outputs(*inputs)
    triton_forward.convolve(y, x, weight.contiguous(), bias, initial_state, offsets, is_silu)
    if state is not None:
        triton_forward.write_state(state, x, initial_state, offsets)
    return results


def backward(grad_y: Tensor, grad_state: Tensor | None, *inputs: Any) -> tuple[Tensor | None, ...]:
    x, weight, bias, offsets, is_silu, initial_state = inputs
    grad_state = None if grad_state is None else grad_state.contiguous()
    grad_y, weight = dense_rows(grad_y), weight.contiguous()
    dx, dweight, dbias, dinitial = found = gradients(grad_y, grad_state, *inputs)
    inner, partials = triton_backward.weight_gradients(grad_y, x, weight, bias, initial_state, offsets, is_silu)
    dweight.copy_(partials[:, 1:].sum(0).t())
    dbias.copy_(partials[:, 0].sum(0))
    triton_backward.input_gradient(dx, inner, weight, grad_state, offsets)
    if dinitial is not None:
        triton_backward.state_gradient(dinitial, inner, weight, grad_state, offsets)
    return found
