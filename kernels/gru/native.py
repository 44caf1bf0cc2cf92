"""The GRU's recurrence by the C++ kernels (csrc/cpu/gru.cpp): fp32 on CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from ..native import call
from ..results import empty_like
from .operator import outputs


def forward(
    inputs: Tensor,
    w_hh: Tensor,
    b_hh: Tensor | None,
    offsets: Tensor,
    h0: Tensor | None,
    return_state: bool,
    keep: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    results = outputs(inputs, w_hh, b_hh, offsets, h0, return_state, keep)
    call("gru_forward", *results, inputs, w_hh, b_hh, h0, offsets)
    return results


def backward(
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
    d_inputs, d_recurrent, previous = empty_like(gates, gates, out)
    if grad_state is None:
        d_state = out.new_zeros(offsets.shape[0] - 1, out.shape[1])
    else:
        d_state = grad_state.clone(memory_format=torch.contiguous_format)
    written = (d_inputs, d_recurrent, previous, d_state)
    grad_out = None if grad_out is None else grad_out.contiguous()
    call("gru_backward", *written, grad_out, out, gates, recurrent_new, w_hh, h0, offsets, needs_h0)
    d_weight = d_recurrent.t() @ previous if needs_w_hh else None
    d_bias = d_recurrent.sum(0) if needs_b_hh else None
    return d_inputs, d_weight, d_bias, d_state if needs_h0 else None
