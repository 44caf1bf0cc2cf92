"""In-batch softmax by the C++ cross entropy over a catalogue, the batch's positives in the catalogue's place."""

from __future__ import annotations

import torch
from torch import Tensor

from ..linear_cross_entropy.native import mean_loss


def info_nce(hidden: Tensor, positives: Tensor, ids: Tensor, log_q: Tensor | None, temperature: float) -> Tensor:
    bias = None if log_q is None else -log_q.detach()
    return mean_loss(hidden / temperature, positives, torch.arange(len(ids)), bias, ids)
