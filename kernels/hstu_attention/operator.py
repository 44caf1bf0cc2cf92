"""The torch.library operators behind `hstu_attention`: opaque to torch.compile, differentiable, recomputing."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from ..native import native_op
from .eager import Settings
from .visible import Limits


@cache
def _module(backend: str) -> ModuleType:
    """The module `eager`, `native` or `triton` beside this one, imported when it first runs."""
    return import_module(f"{__package__}.{backend}")


@native_op("hstu_attention")
def hstu_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    timestamps: Tensor | None,
    num_targets: Tensor | None,
    max_len: int,
    scale: float,
    max_attn_len: int,
    contextual_seq_len: int,
    backend: str,
) -> Tensor:
    """Forward pass (T, H, Dv), by the named backend; arguments are checked by the caller."""
    limits = Limits(num_targets, max_attn_len, contextual_seq_len)
    settings = Settings(offsets, max_len, scale, position_bias, time_bias, timestamps, limits)
    return _module(backend).forward(q, k, v, settings)


@hstu_attention.register_fake
def _(q, k, v, *others) -> Tensor:
    return torch.empty_like(v, memory_format=torch.contiguous_format)


@native_op("hstu_attention_backward")
def hstu_attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    timestamps: Tensor | None,
    num_targets: Tensor | None,
    max_len: int,
    scale: float,
    max_attn_len: int,
    contextual_seq_len: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and the two tables (empty where a table is absent)."""
    limits = Limits(num_targets, max_attn_len, contextual_seq_len)
    settings = Settings(offsets, max_len, scale, position_bias, time_bias, timestamps, limits)
    return _module(backend).backward(grad, q, k, v, settings)


@hstu_attention_backward.register_fake
def _(grad, q, k, v, offsets, position_bias, time_bias, *others):
    tables = (q.new_empty(0 if table is None else table.shape[0]) for table in (position_bias, time_bias))
    return (*(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v)), *tables)


def _setup_context(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:8])
    ctx.settings = inputs[8:]


def _backward(ctx, grad):
    position_bias, time_bias = ctx.saved_tensors[4:6]
    dq, dk, dv, position, time = hstu_attention_backward(grad.contiguous(), *ctx.saved_tensors, *ctx.settings)
    tables = (None if position_bias is None else position, None if time_bias is None else time)
    return dq, dk, dv, None, *tables, *(None,) * 7


hstu_attention.register_autograd(_backward, setup_context=_setup_context)
