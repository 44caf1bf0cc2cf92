"""HSTU attention by Triton kernels on CUDA tensors (on CPU tensors under TRITON_INTERPRET=1): bf16 and fp32.

Products of bf16 operands are accumulated in fp32; fp32 ones are fp32 throughout. No atomics are used: the same inputs
give the same bits on one kind of GPU as long as the autotuner's choice stands, which it keeps on disk; the kernel of
the tables' gradients is not tuned at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from .eager import Settings


def forward(q: Tensor, k: Tensor, v: Tensor, settings: Settings) -> Tensor:
    """The operator's output (T, H, Dv); arguments as the operator has checked them."""
    from . import triton_forward

    return triton_forward.forward(q, k, v, settings)


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, settings: Settings
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, position_bias and time_bias (the last two empty where there is no table)."""
    from . import triton_backward, triton_tables

    dq, dk, dv = triton_backward.backward(grad, q, k, v, settings)
    return dq, dk, dv, *triton_tables.table_gradients(grad, q, k, v, settings)
