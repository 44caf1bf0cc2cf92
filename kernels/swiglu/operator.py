"""What swiglu's backends have in common. The gate's sigmoid is computed again for the gradient."""

from __future__ import annotations

from torch import Tensor

from ..operator import ALL_BUT_DOUBLE, SINGLE_AND_BF16, Kernel, declare
from ..results import empty_like, uninitialised
from . import eager, reference


def outputs(gate: Tensor, up: Tensor) -> Tensor:
    return uninitialised(gate)


def gradients(grad_y: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    return empty_like(gate, up)


SWIGLU = declare(
    "swiglu",
    Kernel("swiglu", __package__, outputs, gradients=gradients, of=("gate", "up")),
    {"native": SINGLE_AND_BF16, "triton": ALL_BUT_DOUBLE},
    reference=reference.swiglu,
    eager=eager.swiglu,
)
