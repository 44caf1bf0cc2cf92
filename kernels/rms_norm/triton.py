"""rms_norm by Triton kernels (kernels/triton_norms.py): fp32, bf16 and fp16 on GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from ..triton_norms import norm_backward, norm_forward
from .operator import gradients, outputs, outputs_of_sum


def forward(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    y, statistics = results = outputs(x, weight, eps, dtype)
    norm_forward(y, None, statistics, x, None, weight, None, None, eps)
    return results


def forward_of_sum(x: Tensor, weight: Tensor, eps: float, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y, total, statistics = results = outputs_of_sum(x, weight, eps, residual)
    norm_forward(y, total, statistics, x, residual, weight, None, None, eps)
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
    dx, _, update = gradients(grad_y, grad_total, statistics, x, weight, False, is_mixed)
    dweight, _ = norm_backward(dx, None, grad_y, grad_total, x, statistics, weight, None, needs_weight, update=update)
    return dx, dweight if needs_weight else None, update
