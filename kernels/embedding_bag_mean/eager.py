"""Torch's own embedding bag, which is fused on CPU and CUDA."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import embedding_bag


def embedding_bag_mean(table: Tensor, ids: Tensor, offsets: Tensor, sparse: bool = False) -> Tensor:
    return embedding_bag(ids, table, offsets, mode="mean", include_last_offset=True, sparse=sparse)
