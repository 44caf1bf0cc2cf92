"""Ranks by counting in plain torch, a chunk of the catalogue at a time."""

from __future__ import annotations

import torch
from torch import Tensor

# Scores held at once (tokens * items): 4 MiB of fp32.
_CELLS = 2**20


@torch.no_grad()
def linear_rank(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    tokens, items = hidden.shape[0], weight.shape[0]
    own = (hidden * weight.index_select(0, target)).sum(-1, keepdim=True)
    rank = torch.zeros_like(target)
    chunk = max(1, _CELLS // max(1, tokens))
    for begin in range(0, items, chunk):
        scores = hidden @ weight[begin : begin + chunk].T
        # The product may sum in another order, and so give the target another score than it has among the items.
        token = (target // chunk == begin // chunk).nonzero().squeeze(-1)
        scores[token, target[token] - begin] = own[token, 0]
        # A score that is not at most the target's is above it, or NaN.
        rank += scores.shape[1] - torch.count_nonzero(scores <= own, dim=-1)
        tied, item = (scores == own).nonzero().unbind(-1)
        rank.index_add_(0, tied, (item + begin < target[tied]).to(rank.dtype))
    return rank.clamp_(max=items - 1)  # a target whose score is NaN has counted itself
