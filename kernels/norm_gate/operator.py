"""What norm_gate's backends have in common."""

from __future__ import annotations

from torch import Tensor

from ..operator import ALL_BUT_DOUBLE, SINGLE_AND_BF16, Kernel, declare
from ..results import empty_like, empty_statistics, uninitialised
from . import eager, reference


def outputs(x: Tensor, gate: Tensor, eps: float, dropout_p: float, seed: Tensor | None) -> tuple[Tensor, Tensor]:
    """The output, and each row's mean and inverse deviation (2, rows)."""
    return uninitialised(x), empty_statistics(x, 2)


def gradients(
    grad_y: Tensor, statistics: Tensor, x: Tensor, gate: Tensor, dropout_p: float, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    return empty_like(x, gate)


NORM_GATE = declare(
    "norm_gate",
    Kernel("norm_gate", __package__, outputs, kept=("statistics",), gradients=gradients, of=("x", "gate")),
    {"native": SINGLE_AND_BF16, "triton": ALL_BUT_DOUBLE},
    reference=reference.norm_gate,
    eager=eager.norm_gate,
)
