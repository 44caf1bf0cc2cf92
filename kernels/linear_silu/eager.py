"""Torch's projection and its SiLU, one after the other."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import linear, silu


def linear_silu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return silu(linear(x, weight, bias))
