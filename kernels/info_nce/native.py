"""In-batch softmax by the C++ cross entropy over a catalogue, with the batch's positives as the catalogue."""

from __future__ import annotations

from torch import Tensor

from ..linear_cross_entropy.native import differentiate_loss, fake_loss, mean_loss, save_gradients, wanted_gradients
from ..native import native_op


def info_nce(hidden: Tensor, positives: Tensor, ids: Tensor, log_q: Tensor | None, temperature: float) -> Tensor:
    log_q = None if log_q is None else log_q.detach()
    return _forward(hidden, positives, ids, log_q, temperature, *wanted_gradients(hidden, positives))[0]


@native_op("info_nce")
def _forward(
    hidden: Tensor,
    positives: Tensor,
    ids: Tensor,
    log_q: Tensor | None,
    temperature: float,
    of_hidden: bool,
    of_positives: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss and its gradients of `hidden` and `positives`, None where they are not asked for."""
    bias = None if log_q is None else -log_q
    scaled = hidden if temperature == 1 else hidden / temperature
    wanted = (of_hidden, of_positives)
    loss, g_hidden, g_positives = mean_loss(scaled, positives, None, bias, (ids, ids), wanted)
    if g_hidden is not None and temperature != 1:
        g_hidden /= temperature
    return loss, g_hidden, g_positives


@_forward.register_fake
def _(hidden, positives, ids, log_q, temperature, of_hidden, of_positives):
    return fake_loss(hidden, positives, of_hidden, of_positives)


_forward.register_autograd(differentiate_loss, setup_context=save_gradients)
