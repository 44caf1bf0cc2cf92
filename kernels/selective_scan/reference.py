"""The specification, in float64: one sequence, one token at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu, softplus


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    offsets: Tensor,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    ys, states = [], []
    step = delta.double() if delta_bias is None else delta.double() + delta_bias.double()
    step = softplus(step) if delta_softplus else step
    bounds = offsets.tolist()
    for b, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        h = (A.new_zeros(A.shape) if initial_state is None else initial_state[b]).double()
        for t in range(start, end):
            h = (step[t, :, None] * A.double()).exp() * h + (step[t] * u[t].double())[:, None] * B[t].double()
            y = h @ C[t].double() + (0 if D is None else D.double() * u[t].double())
            ys.append(y if z is None else y * silu(z[t].double()))
        states.append(h)
    y = (torch.stack(ys) if ys else (u * delta).double()).to(u.dtype)
    if not return_state:
        return y
    state = torch.stack(states) if states else A.new_zeros(0, *A.shape)
    return y, state.to(torch.promote_types(u.dtype, torch.float32))
