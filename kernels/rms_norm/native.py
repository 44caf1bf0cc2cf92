"""rms_norm by the C++ kernels (csrc/cpu/norms.cpp): fp32 and bf16 on CPU. They know one dtype a call: that of the
rows that are normalised, from and to which anything else is converted."""

from __future__ import annotations

import torch
from torch import Tensor

from ..native import call
from ..rows import as_rows
from .operator import gradients, outputs, outputs_of_sum


def forward(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    if dtype is not x.dtype:
        y, statistics = forward(x, weight, eps, x.dtype)
        return y.to(dtype), statistics
    y, statistics = results = outputs(x, weight, eps, dtype)
    call("norm_forward", as_rows(y), None, statistics, as_rows(x), None, weight, None, None, eps)
    return results


def forward_of_sum(x: Tensor, weight: Tensor, eps: float, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if x.dtype is not residual.dtype:
        y, total, statistics = forward_of_sum(x.to(residual.dtype), weight, eps, residual)
        return y.to(x.dtype), total, statistics
    y, total, statistics = results = outputs_of_sum(x, weight, eps, residual)
    arguments = (as_rows(x), as_rows(residual), weight, None, None)
    call("norm_forward", as_rows(y), as_rows(total), statistics, *arguments, eps)
    return results


def backward(
    grad_y: Tensor,
    grad_total: Tensor | None,
    statistics: Tensor,
    x: Tensor,
    weight: Tensor,
    needs_weight: bool,
    is_mixed: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    if grad_y.dtype is not x.dtype:
        dx, dweight, _ = backward(grad_y.to(x.dtype), grad_total, statistics, x, weight, needs_weight, False)
        return dx, dweight, dx.to(grad_y.dtype) if is_mixed else None
    dx, dweight, _ = found = gradients(grad_y, grad_total, statistics, x, weight, needs_weight, False)
    beside = None if grad_total is None else as_rows(grad_total)
    inputs = (as_rows(grad_y), beside, as_rows(x), statistics, weight, None)
    call("norm_backward", as_rows(dx), None, dweight, None, *inputs)
    return found
