"""rms_norm by the C++ kernels (csrc/cpu/norms.cpp): fp32 and bf16 on CPU."""

from __future__ import annotations

from torch import Tensor

from ..native import call
from ..rows import as_rows
from .operator import gradients, outputs, outputs_of_sum


def forward(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    y, statistics = results = outputs(x, weight, eps)
    call("norm_forward", as_rows(y), None, statistics, as_rows(x), None, weight, None, None, eps)
    return results


def forward_of_sum(x: Tensor, weight: Tensor, eps: float, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y, total, statistics = results = outputs_of_sum(x, weight, eps, residual)
    arguments = (as_rows(x), as_rows(residual), weight, None, None)
    call("norm_forward", as_rows(y), as_rows(total), statistics, *arguments, eps)
    return results


def backward(
    grad_y: Tensor, grad_total: Tensor | None, statistics: Tensor, x: Tensor, weight: Tensor, needs_weight: bool
) -> tuple[Tensor, Tensor | None]:
    dx, dweight = found = gradients(grad_y, grad_total, statistics, x, weight, needs_weight)
    beside = None if grad_total is None else as_rows(grad_total)
    inputs = (as_rows(grad_y), beside, as_rows(x), statistics, weight, None)
    call("norm_backward", as_rows(dx), None, dweight, None, *inputs)
    return found
