"""Causal attention by the C++ kernels (csrc/cpu/causal_attention.cpp): fp32 on CPU."""

from __future__ import annotations

from torch import Tensor

from ..native import call
from .operator import gradients, outputs


def forward(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    results = outputs(q, k, v, offsets, scale, "native")
    call("causal_attention_forward", *results, q, k, v, offsets, scale)
    return results


def backward(
    grad_out: Tensor, out: Tensor, log_sums: Tensor, q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    arguments = (grad_out.contiguous(), out, log_sums, q, k, v, offsets, scale)
    found = gradients(*arguments)
    call("causal_attention_backward", *found, *arguments)
    return found
