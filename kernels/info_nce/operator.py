"""In-batch softmax by the compiled cross entropies over a catalogue, with the batch's positives as the catalogue."""

from __future__ import annotations

from torch import Tensor

from ..linear_cross_entropy.operator import WIDEST, mean_loss
from ..operator import SINGLE, SINGLE_AND_BF16, declare
from . import eager, reference


def _run(
    backend: str, hidden: Tensor, positives: Tensor, ids: Tensor, log_q: Tensor | None, temperature: float
) -> Tensor:
    if backend == "triton" and (hidden.shape[1] > WIDEST[hidden.dtype] or hidden.shape[0] == 0):
        return eager.info_nce(hidden, positives, ids, log_q, temperature)
    bias = None if log_q is None else -log_q.detach().float()
    scaled = hidden if temperature == 1 else hidden / temperature
    return mean_loss(backend, scaled, positives, None, bias, ids)


INFO_NCE = declare(
    "info_nce",
    _run,
    {"native": SINGLE, "triton": SINGLE_AND_BF16},
    reference=reference.info_nce,
    eager=eager.info_nce,
)
