"""swiglu by the C++ kernels (csrc/cpu/swiglu.cpp): fp32 and bf16 on CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from ..native import call
from ..rows import as_rows
from .operator import gradients, halves, outputs


def forward(gate: Tensor, up: Tensor | None) -> Tensor:
    y = outputs(gate, up)
    gate, up = halves(gate, up)
    call("swiglu_forward", as_rows(y), as_rows(gate), as_rows(up))
    return y


def backward(grad_y: Tensor, gate: Tensor, up: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if up is None:  # the kernel writes no strided rows
        return torch.cat(backward(grad_y, *halves(gate, up)), dim=-1), None
    dgate, dup = found = gradients(grad_y, gate, up)
    call("swiglu_backward", as_rows(dgate), as_rows(dup), as_rows(grad_y), as_rows(gate), as_rows(up))
    return found
