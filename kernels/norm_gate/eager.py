"""Normalise and gate in plain torch."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import layer_norm

from .. import philox


def norm_gate(x: Tensor, gate: Tensor, eps: float, dropout_p: float, seed: Tensor | None) -> Tensor:
    y = layer_norm(x, x.shape[-1:], None, None, eps) * gate
    return y if seed is None else philox.dropout(y, dropout_p, seed)
