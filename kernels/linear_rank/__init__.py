"""Full-catalogue rank by counting: recall and NDCG need neither the (T, V) scores nor a sort."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_indices, check_same, check_tensor
from .operator import LINEAR_RANK

__all__ = ["linear_rank"]


def linear_rank(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """How many items of the catalogue come before the target when all are ordered by `hidden . weight`.

    Item v comes before the target y if its score is higher, or equal and v < y: every token's items are in a total
    order, so 0 is best and V - 1 worst, and ranks do not depend on how a sort breaks ties. NaN never flatters: an
    item whose score is NaN comes before the target, and a target whose own score is NaN comes last.

    Scores are computed in the dtype of the inputs ("triton": in float32). "native" and "triton" sum every score in
    the same order, so equal rows of `weight` tie exactly and the result does not depend on the number of threads;
    "eager" leaves the order to torch's matrix product, whose rounding may split ties between equal rows.

    Args:
        hidden: (T, d), floating.
        weight: (V, d), the same dtype; V >= 1.
        target: int64 (T,), each in [0, V).

    Returns:
        int64 (T,); no gradient.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape, device or values; it is named.
        RuntimeError: the requested backend cannot run.
    """
    check_tensor(hidden, "hidden", (None, None))
    check_tensor(weight, "weight", (None, hidden.shape[1]))
    check_tensor(target, "target", (hidden.shape[0],), (torch.int64,))
    check_same(hidden, "hidden", weight=weight)
    check_same(hidden, "hidden", dtype=False, target=target)
    check_indices(target, weight.shape[0], "target")
    return LINEAR_RANK.of(hidden)(hidden, weight, target)
