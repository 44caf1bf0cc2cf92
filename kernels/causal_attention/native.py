"""Causal attention by the C++ kernels (csrc/cpu/causal_attention.cpp): fp32 on CPU."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..native import fill
from .operator import gradients, outputs


def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
    return fill("causal_attention_forward", outputs(*inputs, "native"), *inputs)


def backward(grad_out: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    arguments = (grad_out.contiguous(), *others)
    return fill("causal_attention_backward", gradients(*arguments), *arguments)
