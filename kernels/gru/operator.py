"""The GRU as one kernel a layer.

A layer's products over all tokens at once (inputs, gradient of the recurrent weights) are torch's; the kernel runs
the recurrence, on the packed tokens as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from ..operator import SINGLE, Kernel, declare
from ..results import uninitialised
from . import eager, reference

Weights = Sequence[tuple[Tensor, Tensor, Tensor | None, Tensor | None]]


def outputs(
    inputs: Tensor,
    w_hh: Tensor,
    b_hh: Tensor | None,
    offsets: Tensor,
    h0: Tensor | None,
    return_state: bool,
    keep: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """States (T, H), final states (B, H) if asked for, and for a gradient the gates (T, 3H) and the new gate's
    recurrent product (T, H). `inputs` (T, 3H) is the input projection of the gates."""
    tokens, hidden = inputs.shape[0], w_hh.shape[1]
    return (
        inputs.new_empty(tokens, hidden),
        inputs.new_empty(offsets.shape[0] - 1, hidden) if return_state else None,
        inputs.new_empty(tokens, 3 * hidden) if keep else None,
        inputs.new_empty(tokens, hidden) if keep else None,
    )


def gradients(
    grad_out: Tensor | None,
    grad_state: Tensor | None,
    out: Tensor,
    gates: Tensor,
    recurrent_new: Tensor,
    w_hh: Tensor,
    offsets: Tensor,
    h0: Tensor | None,
    needs_w_hh: bool,
    needs_b_hh: bool,
    needs_h0: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    hidden = w_hh.shape[1]
    return (
        uninitialised(gates),
        uninitialised(w_hh) if needs_w_hh else None,
        out.new_empty(3 * hidden) if needs_b_hh else None,
        out.new_empty(offsets.shape[0] - 1, hidden) if needs_h0 else None,
    )


_RECURRENCE = Kernel(
    "gru_recurrence",
    __package__,
    outputs,
    results=("out", "state"),
    kept=("gates", "recurrent_new"),
    gradients=gradients,
    of=("inputs", "w_hh", "b_hh", "h0"),
)


def _run(
    backend: str, x: Tensor, weights: Weights, offsets: Tensor, h0: Tensor | None, return_state: bool
) -> Tensor | tuple[Tensor, Tensor]:
    states = []
    for i, (w_ih, w_hh, b_ih, b_hh) in enumerate(weights):
        initial = None if h0 is None else h0[i]
        x, state = _RECURRENCE(backend, linear(x, w_ih, b_ih), w_hh, b_hh, offsets, initial, return_state)
        states.append(state)
    return (x, torch.stack(states)) if return_state else x


GRU = declare("gru", _run, {"native": SINGLE}, reference=reference.gru, eager=eager.gru)
