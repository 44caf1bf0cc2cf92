"""Normalise and gate by Triton kernels (kernels/triton_norms.py): fp32, bf16 and fp16 on GPU."""

from __future__ import annotations

from torch import Tensor

from ..triton_norms import norm_backward, norm_forward
from .operator import gradients, outputs


def forward(x: Tensor, gate: Tensor, eps: float, dropout_p: float, seed: Tensor | None) -> tuple[Tensor, Tensor]:
    y, statistics = results = outputs(x, gate, eps, dropout_p, seed)
    norm_forward(y, None, statistics, x, None, None, None, gate, eps, dropout_p, seed)
    return results


def backward(
    grad_y: Tensor, statistics: Tensor, x: Tensor, gate: Tensor, dropout_p: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    dx, dgate = found = gradients(grad_y, statistics, x, gate, dropout_p, seed)
    norm_backward(dx, dgate, grad_y, None, x, statistics, None, gate, dropout_p=dropout_p, seed=seed)
    return found
