"""SiLU of a projection as one kernel; the products of the gradients are torch's.

In float32 everything is torch's: the tensor cores have no exact product, and without them cuBLAS is faster.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..operator import ALL_BUT_DOUBLE, Kernel, declare
from . import eager, reference


def outputs(x: Tensor, weight: Tensor, bias: Tensor | None, keep: bool) -> tuple[Tensor, Tensor | None]:
    """The output and, for a gradient, the input of SiLU."""
    shape = (*x.shape[:-1], weight.shape[0])
    return x.new_empty(shape), x.new_empty(shape) if keep else None


def _differentiate(
    grad_y: Tensor, z: Tensor, x: Tensor, weight: Tensor, needs_x: bool, needs_weight: bool, needs_bias: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    dz = torch.ops.aten.silu_backward(grad_y, z)  # one pass, fp32 inside
    rows = dz.reshape(-1, weight.shape[0])
    dx = dz @ weight if needs_x else None
    dweight = rows.T @ x.reshape(-1, x.shape[-1]) if needs_weight else None
    return dx, dweight, rows.sum(0) if needs_bias else None


_KERNEL = Kernel(
    "linear_silu", __package__, outputs, kept=("z",), differentiate=_differentiate, of=("x", "weight", "bias")
)


def _run(backend: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if x.dtype == torch.float32:
        return eager.linear_silu(x, weight, bias)
    return _KERNEL(backend, x, weight, bias)


LINEAR_SILU = declare(
    "linear_silu", _run, {"triton": ALL_BUT_DOUBLE}, reference=reference.linear_silu, eager=eager.linear_silu
)
