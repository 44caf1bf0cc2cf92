"""The specification, in float64."""

from __future__ import annotations

from torch import Tensor


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    wide = gate.double()
    return (wide * wide.sigmoid() * up.double()).to(gate.dtype)
