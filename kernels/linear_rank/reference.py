"""The specification, in float64: count, for each token, the items in front of its target."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_rank(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    items = torch.arange(weight.shape[0], device=weight.device)
    ranks = []
    for state, item in zip(hidden.double(), target.tolist(), strict=True):
        scores = (weight.double() * state).sum(-1)
        in_front = ~(scores <= scores[item]) | ((scores == scores[item]) & (items < item))
        ranks.append(int(in_front.sum()) - int(in_front[item]))
    return torch.tensor(ranks, dtype=torch.int64, device=hidden.device)
