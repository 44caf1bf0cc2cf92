"""Plain torch: the chunked softmax loss of `linear_cross_entropy`, with the batch's positives as the catalogue.

Rows are worked off in chunks of at most 256 MB of logits, so a batch is bounded by its embeddings, not by T x T.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..linear_cross_entropy.eager import mean_softmax_loss


def info_nce(hidden: Tensor, positives: Tensor, ids: Tensor, log_q: Tensor | None, temperature: float) -> Tensor:
    diagonal = torch.arange(len(ids), device=ids.device)

    def adjust(logits: Tensor, rows: slice) -> None:
        if log_q is not None:
            logits.sub_(log_q.detach())
        is_hidden = ids[rows, None] == ids
        is_hidden &= diagonal[rows, None] != diagonal
        logits.masked_fill_(is_hidden, -torch.inf)

    return mean_softmax_loss(hidden / temperature, positives, diagonal, adjust)
