"""The specification, in float64: one token at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, target: Tensor, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    zero = (hidden[:0].sum() + weight[:0].sum()).double()  # in the graph, whatever the targets
    losses = [zero for _ in range(len(target))]
    for i, item in enumerate(target.tolist()):
        if item != ignore_index:
            logits = weight.double() @ hidden[i].double()
            losses[i] = logits.logsumexp(0) - logits[item]
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    if reduction == "none":
        return torch.stack([zero, *losses])[1:].detach().to(dtype)
    return (torch.stack([zero, *losses]).sum() / max(1, int((target != ignore_index).sum()))).to(dtype)
