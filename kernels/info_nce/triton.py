"""In-batch softmax by the Triton cross entropy over a catalogue, with the batch's positives as the catalogue.

fp32 and bf16, accumulated in fp32; (T, T) logits exist in registers only. Vectors wider than 512 (fp32: 128) go to
"eager".
"""

from __future__ import annotations

from torch import Tensor

from ..linear_cross_entropy.triton import WIDEST, mean_loss
from . import eager


def info_nce(hidden: Tensor, positives: Tensor, ids: Tensor, log_q: Tensor | None, temperature: float) -> Tensor:
    if hidden.shape[1] > WIDEST[hidden.dtype] or len(hidden) == 0:
        return eager.info_nce(hidden, positives, ids, log_q, temperature)
    bias = None if log_q is None else -log_q.detach().float()
    return mean_loss(hidden / temperature, positives, None, bias, ids)
