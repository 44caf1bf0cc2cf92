"""What layer_norm's backends have in common."""

from __future__ import annotations

from torch import Tensor

from ..operator import ALL_BUT_DOUBLE, SINGLE_AND_BF16, Kernel, declare
from ..results import empty_statistics, uninitialised
from . import eager, reference


def outputs(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """The output, and each row's mean and inverse deviation (2, rows)."""
    return uninitialised(x), empty_statistics(x, 2)


def gradients(
    grad_y: Tensor, statistics: Tensor, x: Tensor, weight: Tensor | None, needs_weight: bool, needs_bias: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    of_weight, of_bias = (x.new_empty(x.shape[-1]) if needed else None for needed in (needs_weight, needs_bias))
    return uninitialised(x), of_weight, of_bias


LAYER_NORM = declare(
    "layer_norm",
    Kernel(
        "layer_norm",
        __package__,
        outputs,
        kept=("statistics",),
        gradients=gradients,
        of=("x", "weight", "bias"),
    ),
    {"native": SINGLE_AND_BF16, "triton": ALL_BUT_DOUBLE},
    reference=reference.layer_norm,
    eager=eager.layer_norm,
)
