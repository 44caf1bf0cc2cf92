"""The specification, in float64: one sequence, one tap at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    activation: str | None = None,
    initial_state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    before = weight.shape[1] - 1
    ys, states = [x[:0].double()], [x.new_zeros(0, x.shape[1], before)]
    for b, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        old = x.new_zeros(before, x.shape[1]) if initial_state is None else initial_state[b].t()
        seen = torch.cat([old, x[start:end]]).double()
        y = sum(seen[k : k + end - start] * weight[:, k].double() for k in range(weight.shape[1]))
        y = y if bias is None else y + bias.double()
        ys.append(y if activation is None else silu(y))
        states.append(seen[len(seen) - before :].t()[None].to(x.dtype))
    y = torch.cat(ys).to(x.dtype)
    return (y, torch.cat(states)) if return_state else y
