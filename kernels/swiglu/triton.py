"""swiglu by Triton kernels (triton_kernels.py): fp32, bf16 and fp16 on GPU."""

from __future__ import annotations

from torch import Tensor

from . import triton_kernels
from .operator import gradients, halves, outputs


def forward(gate: Tensor, up: Tensor | None) -> Tensor:
    y = outputs(gate, up)
    triton_kernels.forward(y, *halves(gate, up))
    return y


def backward(grad_y: Tensor, gate: Tensor, up: Tensor | None) -> tuple[Tensor, Tensor | None]:
    found = gradients(grad_y, gate, up)
    triton_kernels.backward(*halves(*found), grad_y, *halves(gate, up))
    return found
