"""GRU layers by the C++ kernels (csrc/cpu/gru.cpp): fp32 on CPU, forward and backward.

A layer's products over all tokens at once (inputs, gradient of the recurrent weights) are torch's; the kernel runs
the recurrence, on the packed tokens as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from ..native import call, empty_like, native_op

Weights = Sequence[tuple[Tensor, Tensor, Tensor | None, Tensor | None]]


def gru(
    x: Tensor, weights: Weights, offsets: Tensor, *, h0: Tensor | None = None, return_state: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    states = []
    for i, (w_ih, w_hh, b_ih, b_hh) in enumerate(weights):
        inputs, initial = linear(x, w_ih, b_ih), None if h0 is None else h0[i]
        is_trained = torch.is_grad_enabled() and any(
            v is not None and v.requires_grad for v in (inputs, w_hh, b_hh, initial)
        )
        x, state, *_ = _forward(inputs, w_hh, b_hh, initial, offsets, is_trained, return_state)
        states.append(state)
    return (x, torch.stack(states)) if return_state else x


@native_op("gru_recurrence")
def _forward(
    inputs: Tensor,
    w_hh: Tensor,
    b_hh: Tensor | None,
    h0: Tensor | None,
    offsets: Tensor,
    is_trained: bool,
    has_state: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States (T, H), final states (B, H) if `has_state`, and if `is_trained` what the backward pass needs: the gates
    (T, 3H) and the new gate's recurrent product (T, H). `inputs` (T, 3H) is the input projection of the gates.
    """
    results = _results(inputs, w_hh, b_hh, h0, offsets, is_trained, has_state)
    call("gru_forward", *results, inputs, w_hh, b_hh, h0, offsets)
    return results


@_forward.register_fake
def _results(inputs, w_hh, b_hh, h0, offsets, is_trained, has_state):
    tokens, hidden = inputs.shape[0], w_hh.shape[1]
    return (
        inputs.new_empty(tokens, hidden),
        inputs.new_empty(offsets.shape[0] - 1, hidden) if has_state else None,
        inputs.new_empty(tokens, 3 * hidden) if is_trained else None,
        inputs.new_empty(tokens, hidden) if is_trained else None,
    )


@native_op("gru_recurrence_backward")
def _backward(
    grad_out: Tensor | None,
    grad_state: Tensor | None,
    out: Tensor,
    gates: Tensor,
    recurrent_new: Tensor,
    w_hh: Tensor,
    h0: Tensor | None,
    offsets: Tensor,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of inputs, w_hh, b_hh and h0, the latter three empty unless `needs` says so."""
    d_inputs, d_recurrent, previous = empty_like(gates, gates, out)
    if grad_state is None:
        d_state = out.new_zeros(offsets.shape[0] - 1, out.shape[1])
    else:
        d_state = grad_state.clone(memory_format=torch.contiguous_format)
    written = (d_inputs, d_recurrent, previous, d_state)
    needs_weight, needs_bias, needs_h0 = needs
    call("gru_backward", *written, grad_out, out, gates, recurrent_new, w_hh, h0, offsets, needs_h0)
    empty = _gradients(None, None, out, gates, recurrent_new, w_hh, h0, offsets, [False] * 3)
    d_weight = d_recurrent.t() @ previous if needs_weight else empty[1]
    d_bias = d_recurrent.sum(0) if needs_bias else empty[2]
    return d_inputs, d_weight, d_bias, d_state if needs_h0 else empty[3]


@_backward.register_fake
def _gradients(grad_out, grad_state, out, gates, recurrent_new, w_hh, h0, offsets, needs):
    hidden = w_hh.shape[1]
    shapes = (3 * hidden, hidden), (3 * hidden,), (offsets.shape[0] - 1, hidden)
    given = (out.new_empty(shape if need else (0,)) for shape, need in zip(shapes, needs, strict=True))
    return *empty_like(gates), *given


def _setup_context(ctx, inputs, output) -> None:
    _, w_hh, _, h0, offsets, is_trained, _ = inputs
    if not is_trained:
        raise RuntimeError("gru_recurrence has gradients only if is_trained.")
    out, _, *kept = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(out, *kept, w_hh, h0, offsets)


def _differentiate(ctx, grad_out, grad_state, *_):
    _, *needs = ctx.needs_input_grad[:4]
    grad_out = None if grad_out is None else grad_out.contiguous()
    d_inputs, *others = _backward(grad_out, grad_state, *ctx.saved_tensors, needs)
    return d_inputs, *(g if need else None for g, need in zip(others, needs, strict=True)), None, None, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)
