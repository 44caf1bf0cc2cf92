"""The GRU's recurrence by the C++ kernels (csrc/cpu/gru.cpp): fp32 on CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..native import call, fill
from ..results import empty_like
from .operator import outputs


def forward(*inputs: Any) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    *arguments, _, _ = inputs  # but return_state and keep
    return fill("gru_forward", outputs(*inputs), *arguments)


def backward(grad_out: Tensor | None, grad_state: Tensor | None, *others: Any) -> tuple[Tensor | None, ...]:
    out, gates, recurrent_new, w_hh, offsets, h0, needs_w_hh, needs_b_hh, needs_h0 = others
    d_inputs, d_recurrent, previous = empty_like(gates, gates, out)
    if grad_state is None:
        d_state = out.new_zeros(offsets.shape[0] - 1, out.shape[1])
    else:
        d_state = grad_state.clone(memory_format=torch.contiguous_format)
    written = (d_inputs, d_recurrent, previous, d_state)
    grad_out = None if grad_out is None else grad_out.contiguous()
    call("gru_backward", *written, grad_out, out, gates, recurrent_new, w_hh, offsets, h0, needs_h0)
    d_weight = d_recurrent.t() @ previous if needs_w_hh else None
    d_bias = d_recurrent.sum(0) if needs_b_hh else None
    return d_inputs, d_weight, d_bias, d_state if needs_h0 else None
