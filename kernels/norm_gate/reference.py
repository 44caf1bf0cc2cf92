"""The specification, in float64."""

from __future__ import annotations

from torch import Tensor

from .. import philox
from ..layer_norm import reference


def norm_gate(x: Tensor, gate: Tensor, eps: float, dropout_p: float, seed: Tensor | None) -> Tensor:
    y = reference.layer_norm(x.double(), None, None, eps) * gate.double()
    return (y if seed is None else philox.dropout(y, dropout_p, seed)).to(x.dtype)
