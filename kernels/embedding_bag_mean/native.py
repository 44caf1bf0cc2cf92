"""Embedding bags by the C++ kernels (csrc/cpu/embedding_bag.cpp): fp32 and bf16 on CPU.

The dense gradient is written in blocks of rows, each of which is zeroed and added to while it is in the cache.
"""

from __future__ import annotations

from torch import Tensor

from ..native import call
from .operator import dense_gradient, entries, outputs


def forward(table: Tensor, ids: Tensor, offsets: Tensor, sparse: bool) -> Tensor:
    means = outputs(table, ids, offsets, sparse)
    call("embedding_bag_mean", means, table, ids, offsets)
    return means


def backward(grad_y: Tensor, table: Tensor, ids: Tensor, offsets: Tensor) -> Tensor:
    gradient = dense_gradient(grad_y, table, ids, offsets)
    call("embedding_bag_mean_backward", gradient, grad_y, ids, offsets)
    return gradient


def values(grad_y: Tensor, ids: Tensor, offsets: Tensor) -> Tensor:
    found = entries(grad_y, ids, offsets)
    call("embedding_bag_mean_values", found, grad_y, ids, offsets)
    return found
