"""What swiglu's backends have in common. The gate's sigmoid is computed again for the gradient."""

from __future__ import annotations

from torch import Tensor

from ..operator import ALL_BUT_DOUBLE, SINGLE_AND_BF16, Kernel, declare
from ..results import empty_where, uninitialised
from . import eager, reference


def outputs(gate: Tensor, up: Tensor | None) -> Tensor:
    return gate.new_empty((*gate.shape[:-1], gate.shape[-1] // 2)) if up is None else uninitialised(gate)


def gradients(grad_y: Tensor, gate: Tensor, up: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return empty_where(gate, up)


def halves(gate: Tensor, up: Tensor | None) -> tuple[Tensor, Tensor]:
    """Views of gate and up, which lie side by side in `gate` where there is no `up`."""
    return gate.chunk(2, dim=-1) if up is None else (gate, up)


SWIGLU = declare(
    "swiglu",
    Kernel("swiglu", __package__, outputs, gradients=gradients, of=("gate", "up")),
    {"native": SINGLE_AND_BF16, "triton": ALL_BUT_DOUBLE},
    reference=reference.swiglu,
    eager=eager.swiglu,
)
