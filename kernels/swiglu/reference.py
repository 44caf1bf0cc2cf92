"""The specification, in float64."""

from __future__ import annotations

from torch import Tensor


def swiglu(gate: Tensor, up: Tensor | None) -> Tensor:
    gate, up = gate.chunk(2, dim=-1) if up is None else (gate, up)
    wide = gate.double()
    return (wide * wide.sigmoid() * up.double()).to(gate.dtype)
