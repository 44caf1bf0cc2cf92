"""The specification, in float64: one layer, one sequence, one token at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gru(
    x: Tensor,
    weights: Sequence[tuple[Tensor, Tensor, Tensor | None, Tensor | None]],
    offsets: Tensor,
    h0: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    out, finals = x.double(), []
    bounds = offsets.tolist()
    for layer, parameters in enumerate(weights):
        w_ih, w_hh, b_ih, b_hh = (0 if w is None else w.double() for w in parameters)
        rows, states = [], []
        for b, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
            h = (x.new_zeros(w_hh.shape[1]) if h0 is None else h0[layer, b]).double()
            for t in range(start, end):
                (ir, iz, i_n), (hr, hz, hn) = (w_ih @ out[t] + b_ih).chunk(3), (w_hh @ h + b_hh).chunk(3)
                update = torch.sigmoid(iz + hz)
                h = (1 - update) * torch.tanh(i_n + torch.sigmoid(ir + hr) * hn) + update * h
                rows.append(h)
            states.append(h)
        out = torch.stack(rows) if rows else out[:, :1] * w_hh.sum(0)
        finals.append(torch.stack(states) if states else w_hh[:0])
    return (out.to(x.dtype), torch.stack(finals).to(x.dtype)) if return_state else out.to(x.dtype)
