"""Plain torch."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import silu


def swiglu(gate: Tensor, up: Tensor | None) -> Tensor:
    gate, up = gate.chunk(2, dim=-1) if up is None else (gate, up)
    return silu(gate) * up
