"""Embedding bags by Triton kernels (triton_kernels.py): fp32, bf16 and fp16, accumulated in fp32.

Every sum is in the order of occurrence (for a row of a gradient: in pieces of up to 32, and then over the pieces), so
that the bits are the same at every run. Neither gradient waits for a value from the device.
"""

from __future__ import annotations

from torch import Tensor

from . import triton_kernels
from .operator import entries, outputs


def forward(table: Tensor, ids: Tensor, offsets: Tensor, sparse: bool) -> Tensor:
    means = outputs(table, ids, offsets, sparse)
    triton_kernels.launch_mean(means, table, ids, offsets)
    return means


def backward(grad_y: Tensor, table: Tensor, ids: Tensor, offsets: Tensor) -> Tensor:
    gradient = table.new_zeros(table.shape)
    triton_kernels.launch_gradient(gradient, grad_y, ids, offsets)
    return gradient


def values(grad_y: Tensor, ids: Tensor, offsets: Tensor) -> Tensor:
    found = entries(grad_y, ids, offsets)
    triton_kernels.launch_values(found, grad_y, offsets)
    return found
