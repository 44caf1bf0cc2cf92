"""Layer normalisation by the C++ kernels (csrc/cpu/norms.cpp): fp32 and bf16 on CPU."""

from __future__ import annotations

from torch import Tensor

from ..native import call
from ..rows import as_rows
from .operator import gradients, outputs


def forward(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    y, statistics = results = outputs(x, weight, bias, eps)
    call("norm_forward", as_rows(y), None, statistics, as_rows(x), None, weight, bias, None, eps)
    return results


def backward(
    grad_y: Tensor, statistics: Tensor, x: Tensor, weight: Tensor | None, needs_weight: bool, needs_bias: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    dx, dweight, dbias = found = gradients(grad_y, statistics, x, weight, needs_weight, needs_bias)
    inputs = (as_rows(grad_y), None, as_rows(x), statistics, weight, None)
    call("norm_backward", as_rows(dx), None, dweight, dbias, *inputs)
    return found
