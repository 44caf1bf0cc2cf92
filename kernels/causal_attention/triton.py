"""Causal attention by Triton kernels (triton_forward.py, triton_backward.py): fp32, bf16 and fp16, accumulated in fp32.

Results do not depend on how programs are scheduled: the bits are the same at every run on one kind of GPU, as long as
the autotuner's choice stands, which it keeps on disk.
"""

from __future__ import annotations

from torch import Tensor

from . import triton_backward, triton_forward
from .operator import gradients, outputs


def forward(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    results = outputs(q, k, v, offsets, scale, "triton")
    triton_forward.launch_forward(*results, q, k, v, offsets, scale)
    return results


def backward(
    grad_out: Tensor, out: Tensor, log_sums: Tensor, q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    grad_out = grad_out if grad_out.stride(-1) == 1 else grad_out.contiguous()
    arguments = (grad_out, out, log_sums, q, k, v, offsets, scale)
    found = gradients(*arguments)
    triton_backward.launch_backward(*found, *arguments)
    return found
