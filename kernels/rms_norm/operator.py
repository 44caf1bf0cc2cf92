"""What rms_norm's backends have in common: one kernel without a residual, one with it, and the gradient of both."""

from __future__ import annotations

import torch
from torch import Tensor

from ..operator import ALL_BUT_DOUBLE, SINGLE_AND_BF16, Kernel, declare
from ..results import empty_statistics, uninitialised
from . import eager, reference


def outputs(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The output in `dtype`, and each row's inverse root mean square (1, rows)."""
    return uninitialised(x, dtype), empty_statistics(x, 1)


def outputs_of_sum(x: Tensor, weight: Tensor, eps: float, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The output as x, the sum x + residual as the residual, and the sum's inverse root mean squares."""
    return uninitialised(x), uninitialised(residual), empty_statistics(x, 1)


def gradients(
    grad_y: Tensor,
    grad_total: Tensor | None,
    statistics: Tensor,
    x: Tensor,
    weight: Tensor,
    needs_weight: bool,
    is_mixed: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Of x (the sum where there is one, reached by `grad_total` too) and weight; and where the sum `is_mixed`, of what
    the residual was added to: the first again, in the dtype of grad_y."""
    update = uninitialised(x, grad_y.dtype) if is_mixed else None
    return uninitialised(x), uninitialised(weight) if needs_weight else None, update


_BACKWARD = Kernel("rms_norm_backward", __package__, gradients, function="backward", results=("x", "weight", "update"))


def _differentiate(
    grad_y: Tensor, statistics: Tensor, x: Tensor, weight: Tensor, needs_weight: bool, backend: str
) -> tuple[Tensor, Tensor | None]:
    return _BACKWARD(backend, grad_y, None, statistics, x, weight, needs_weight, False)[:2]


def _differentiate_sum(
    grad_y: Tensor | None,
    grad_total: Tensor | None,
    total: Tensor,
    statistics: Tensor,
    weight: Tensor,
    needs_weight: bool,
    backend: str,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    if grad_y is None:
        return grad_total, None, grad_total
    is_mixed = grad_y.dtype is not total.dtype
    dx, dweight, update = _BACKWARD(backend, grad_y, grad_total, statistics, total, weight, needs_weight, is_mixed)
    return update if is_mixed else dx, dweight, dx


_NORM = Kernel("rms_norm", __package__, outputs, kept=("statistics",), differentiate=_differentiate, of=("x", "weight"))
_NORM_OF_SUM = Kernel(
    "rms_norm_sum",
    __package__,
    outputs_of_sum,
    function="forward_of_sum",
    results=("y", "total"),
    kept=("statistics",),
    differentiate=_differentiate_sum,
    of=("x", "weight", "residual"),
)


def _run(
    backend: str, x: Tensor, weight: Tensor, eps: float, residual: Tensor | None, dtype: torch.dtype
) -> Tensor | tuple[Tensor, Tensor]:
    if residual is None:
        return _NORM(backend, x, weight, eps, dtype)
    return _NORM_OF_SUM(backend, x, weight, eps, residual)


RMS_NORM = declare(
    "rms_norm",
    _run,
    {"native": SINGLE_AND_BF16, "triton": ALL_BUT_DOUBLE},
    reference=reference.rms_norm,
    eager=eager.rms_norm,
)
