"""Layer normalisation by Triton kernels (kernels/triton_norms.py): fp32, bf16 and fp16 on GPU."""

from __future__ import annotations

from torch import Tensor

from ..results import uninitialised
from ..triton_norms import norm_backward, norm_forward
from .operator import outputs


def forward(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    y, statistics = results = outputs(x, weight, bias, eps)
    norm_forward(y, None, statistics, x, None, weight, bias, None, eps)
    return results


def backward(
    grad_y: Tensor, statistics: Tensor, x: Tensor, weight: Tensor | None, needs_weight: bool, needs_bias: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    dx = uninitialised(x)
    dweight, dbias = norm_backward(dx, None, grad_y, None, x, statistics, weight, None, needs_weight, needs_bias)
    return dx, dweight if needs_weight else None, dbias if needs_bias else None
