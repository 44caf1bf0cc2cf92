"""HSTU attention's forward pass by the C++ kernel (csrc/cpu/hstu_attention.cpp): fp32 on CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from .eager import Settings


def forward(q: Tensor, k: Tensor, v: Tensor, settings: Settings) -> Tensor:
    """The operator's output (T, H, Dv); arguments as the operator has checked them."""
    raise NotImplementedError
