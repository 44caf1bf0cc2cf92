"""Means of table rows over ragged bags of ids."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_flag, check_indices, check_offsets, check_same, check_tensor
from .operator import EMBEDDING_BAG_MEAN

__all__ = ["embedding_bag_mean"]


def embedding_bag_mean(table: Tensor, ids: Tensor, offsets: Tensor, *, sparse: bool = False) -> Tensor:
    """Row b is the mean of `table[ids[offsets[b]:offsets[b+1]]]`; an empty bag's is zero.

    On CPU in float32 and bfloat16 the results, gradients included, do not depend on the number of threads; they have no
    second derivatives.

    Args:
        table: (V, d), floating.
        ids: int64 (M,), in [0, V); may repeat.
        offsets: int64 (B+1,), from 0 to M.
        sparse: the gradient of `table` is a sparse COO tensor of the rows used, one entry an id (not coalesced), for
            optimisers whose cost follows the rows touched; otherwise dense.

    Returns:
        (B, d), table's dtype.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape, device or values; it is named.
        RuntimeError: the requested backend cannot run.
    """
    check_flag(sparse, "sparse")
    check_tensor(table, "table", (None, None))
    check_tensor(ids, "ids", (None,), (torch.int64,))
    check_same(table, "table", dtype=False, ids=ids)
    check_offsets(offsets, ids)
    check_indices(ids, len(table), "ids")
    return EMBEDDING_BAG_MEAN.of(table)(table, ids, offsets, sparse)
