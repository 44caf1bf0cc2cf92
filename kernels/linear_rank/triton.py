"""Ranks by Triton (triton_count.py): fp32 and bf16; scores are accumulated in fp32 and never stored.

Vectors wider than 512 (fp32: 128) go to "eager".
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..native import native_op
from . import eager

_WIDEST = {torch.bfloat16: 512, torch.float32: 128}  # fp32 tiles are multiplied from registers


def linear_rank(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    if hidden.shape[1] > _WIDEST[hidden.dtype]:
        return eager.linear_rank(hidden, weight, target)
    return _rank(hidden.detach(), weight.detach(), target)


@native_op("linear_rank_triton")
def _rank(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Ranks int64 (T,); arguments as the operator has checked them."""
    from .triton_count import count_in_front

    return count_in_front(hidden, weight, target)


@_rank.register_fake
def _(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return torch.empty_like(target)
