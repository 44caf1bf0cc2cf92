"""The specification, in float64: one sequence, one token at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu, softplus


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    offsets: Tensor,
    dt_softplus: bool = True,
    initial_state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    ys, states = [], []
    step = dt.double() if dt_bias is None else dt.double() + dt_bias.double()
    step = softplus(step) if dt_softplus else step
    b, c = (v.double().repeat_interleave(x.shape[1] // v.shape[1], dim=1) for v in (B, C))  # (T, H, N)
    for i, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        h = x.new_zeros(*x.shape[1:], B.shape[2]).double() if initial_state is None else initial_state[i].double()
        for t in range(start, end):
            h = (step[t] * A.double()).exp()[:, None, None] * h
            h = h + torch.einsum("h,hp,hn->hpn", step[t], x[t].double(), b[t])
            y = torch.einsum("hpn,hn->hp", h, c[t]) + (0 if D is None else D.double()[:, None] * x[t].double())
            ys.append(y if z is None else y * silu(z[t].double()))
        states.append(h)
    y = (torch.stack(ys) if ys else (x * dt[:, :, None]).double()).to(x.dtype)
    if not return_state:
        return y
    state = torch.stack(states) if states else x.new_zeros(0, *x.shape[1:], B.shape[2])
    return y, state.to(torch.promote_types(x.dtype, torch.float32))
