"""In-batch softmax by the C++ cross entropy over a catalogue, the batch's positives in the catalogue's place."""

from __future__ import annotations

import torch
from torch import Tensor

from ..linear_cross_entropy.native import mean_loss
from ..native import native_op


def info_nce(hidden: Tensor, positives: Tensor, ids: Tensor, log_q: Tensor | None, temperature: float) -> Tensor:
    bias = None if log_q is None else -log_q.detach()
    return mean_loss(hidden / temperature, positives, torch.arange(len(ids)), bias, _dense(ids))


@native_op("dense_ids")
def _dense(ids: Tensor) -> Tensor:
    """Ids int64 (T,) numbered from 0."""
    return ids.unique(return_inverse=True)[1].clone()


@_dense.register_fake
def _(ids):
    return torch.empty_like(ids)
