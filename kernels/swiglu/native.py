"""swiglu by the C++ kernels (csrc/cpu/swiglu.cpp): fp32 and bf16 on CPU."""

from __future__ import annotations

from torch import Tensor

from ..native import call
from ..rows import as_rows
from .operator import gradients, outputs


def forward(gate: Tensor, up: Tensor) -> Tensor:
    y = outputs(gate, up)
    call("swiglu_forward", as_rows(y), as_rows(gate), as_rows(up))
    return y


def backward(grad_y: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    dgate, dup = found = gradients(grad_y, gate, up)
    call("swiglu_backward", as_rows(dgate), as_rows(dup), as_rows(grad_y), as_rows(gate), as_rows(up))
    return found
