"""HSTU attention by Triton kernels on CUDA tensors (on CPU tensors under TRITON_INTERPRET=1): bf16 and fp32.

Products of bf16 operands are accumulated in fp32; fp32 ones are fp32 throughout. No atomics are used: the same inputs
give the same bits on one kind of GPU as long as the autotuner's choice stands, which it keeps on disk; the kernel of
the tables' gradients is not tuned at all.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from . import triton_backward, triton_forward, triton_tables
from .settings import Settings


def forward(q: Tensor, k: Tensor, v: Tensor, *settings: Any) -> Tensor:
    return triton_forward.forward(q, k, v, Settings(*settings))


def backward(grad_y: Tensor, q: Tensor, k: Tensor, v: Tensor, *settings: Any) -> tuple[Tensor, ...]:
    """The gradients of the two tables are empty where there is no table."""
    given, grad = Settings(*settings), grad_y.contiguous()
    of_rows = triton_backward.backward(grad, q, k, v, given)
    return *of_rows, *triton_tables.table_gradients(grad, q, k, v, given)
