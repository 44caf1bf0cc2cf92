"""Ranks by counting in plain torch, a chunk of the catalogue at a time."""

from __future__ import annotations

import torch
from torch import Tensor

# Scores held at once (tokens * items): 16 MiB of fp32.
_CELLS = 2**22


@torch.no_grad()
def linear_rank(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    own = (hidden * weight.index_select(0, target)).sum(-1, keepdim=True)
    rank = torch.zeros_like(target)
    chunk = max(1, _CELLS // max(1, hidden.shape[0]))
    for begin in range(0, weight.shape[0], chunk):
        scores = hidden @ weight[begin : begin + chunk].T
        item = torch.arange(begin, begin + scores.shape[1], device=target.device)
        in_front = (scores <= own).logical_not_()
        in_front |= (scores == own) & (item < target[:, None])
        # Another summation order may round the target's score up against itself.
        in_front &= item != target[:, None]
        rank += in_front.sum(-1)
    return rank
