"""The specification, in float64: one row at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def info_nce(hidden: Tensor, positives: Tensor, ids: Tensor, log_q: Tensor | None, temperature: float) -> Tensor:
    losses = [(hidden[:0].sum() + positives[:0].sum()).double()]
    for i, item in enumerate(ids.tolist()):
        logits = positives.double() @ hidden[i].double() / temperature
        if log_q is not None:
            logits = logits - log_q.detach().double()
        is_candidate = ids != item
        is_candidate[i] = True
        losses.append(logits[is_candidate].logsumexp(0) - logits[i])
    return (torch.stack(losses).sum() / max(1, len(ids))).to(torch.promote_types(hidden.dtype, torch.float32))
