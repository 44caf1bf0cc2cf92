"""Normalise and gate by the C++ kernels (csrc/cpu/norms.cpp): fp32 and bf16 on CPU. Dropout is added in plain torch."""

from __future__ import annotations

from torch import Tensor

from ..native import call
from ..philox import dropout
from ..rows import as_rows
from .operator import gradients, outputs


def forward(x: Tensor, gate: Tensor, eps: float, dropout_p: float, seed: Tensor | None) -> tuple[Tensor, Tensor]:
    y, statistics = results = outputs(x, gate, eps, dropout_p, seed)
    call("norm_forward", as_rows(y), None, statistics, as_rows(x), None, None, None, as_rows(gate), eps)
    return results if seed is None else (dropout(y, dropout_p, seed), statistics)


def backward(
    grad_y: Tensor, statistics: Tensor, x: Tensor, gate: Tensor, dropout_p: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    dx, dgate = found = gradients(grad_y, statistics, x, gate, dropout_p, seed)
    if seed is not None:
        grad_y = dropout(grad_y, dropout_p, seed)
    inputs = (as_rows(grad_y), None, as_rows(x), statistics, None, as_rows(gate))
    call("norm_backward", as_rows(dx), as_rows(dgate), None, None, *inputs)
    return found
