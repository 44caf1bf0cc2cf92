"""Cross entropy of a linear layer over a whole catalogue or vocabulary, without the (T, V) logits."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_indices, check_like, check_tensor
from .operator import LINEAR_CROSS_ENTROPY

__all__ = ["linear_cross_entropy"]


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, target: Tensor, *, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """`logsumexp(hidden weight^T) - (hidden weight^T)[target]`, in nats, of tokens whose target is not `ignore_index`.

    Only a chunk of the logits exists at a time: at most 256 MB, and 8 MB on CPU unless that is less than 128 rows; on
    "triton" a tile of them in registers. Gradients to `hidden` and `weight` are dense, and computed in the forward
    pass ("triton": that to `weight` in the backward pass).

    Args:
        hidden: (T, d), floating.
        weight: (V, d), hidden's dtype; V >= 1.
        target: int64 (T,), in [0, V) or `ignore_index`.
        ignore_index: target of tokens that do not count.
        reduction: "mean" over the tokens that count (0 with zero gradients if none do), or "none": each token's loss,
            0 where it does not count, without a gradient (for perplexity: `exp` of the mean over counted tokens).

    Returns:
        A scalar, or (T,) for "none"; float32 (float64 for float64 input).

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape, device or values; it is named.
        RuntimeError: the requested backend cannot run.
    """
    check_tensor(hidden, "hidden", (None, None))
    tokens, width = hidden.shape
    check_like(hidden, "hidden", weight=(weight, (None, width)))
    check_like(hidden, "hidden", (torch.int64,), target=(target, (tokens,)))
    items = weight.shape[0]
    if items == 0:
        raise ValueError("weight must have at least one row.")
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, int):
        raise TypeError(f"ignore_index must be an int, not {type(ignore_index).__name__}.")
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction must be 'mean' or 'none', not {reduction!r}.")
    check_indices(target, items, "target", ignored=ignore_index)
    return LINEAR_CROSS_ENTROPY.of(hidden)(hidden, weight, target, ignore_index, reduction)
