"""In-batch softmax over positives (van den Oord et al. 2018, InfoNCE) with log-Q correction (Yi et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_like, check_positive, check_tensor
from .operator import INFO_NCE

__all__ = ["info_nce"]


def info_nce(hidden: Tensor, positives: Tensor, ids: Tensor, log_q: Tensor | None, temperature: float) -> Tensor:
    """Mean cross entropy of row i's positive among all: `logit_ij = hidden_i . positives_j / temperature - log_q_j`.

    A candidate j != i whose id equals that of positive i is left out of row i's softmax: it is no negative. Vectors
    are used as they come; normalise them for cosine similarity. Gradients go to `hidden` and `positives`.

    Args:
        hidden: (T, d), floating.
        positives: (T, d), hidden's dtype; row i is the embedding of the item that follows hidden_i.
        ids: int64 (T,), the positives' items.
        log_q: (T,), natural logarithm of each positive's chance of being in a batch (its frequency as a positive),
            hidden's dtype or float32, without a gradient; None: no correction.
        temperature: above 0.

    Returns:
        A scalar, float32 (float64 for float64 input); 0 with zero gradients if T is 0.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape, device or values; it is named.
        RuntimeError: the requested backend cannot run.
    """
    check_tensor(hidden, "hidden", (None, None))
    rows, width = hidden.shape
    check_like(hidden, "hidden", positives=(positives, (rows, width)))
    check_like(hidden, "hidden", (torch.int64,), ids=(ids, (rows,)))
    if log_q is not None:
        check_like(hidden, "hidden", (hidden.dtype, torch.float32), log_q=(log_q, (rows,)))
    check_positive(temperature, "temperature")
    return INFO_NCE.of(hidden)(hidden, positives, ids, log_q, float(temperature))
