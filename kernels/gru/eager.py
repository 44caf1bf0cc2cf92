"""Plain torch over time-major tokens: a step works on the sequences still running, so those that ended cost nothing.

Without gradients, and on CUDA, torch's own packed GRU runs. For training on a CPU the recurrence has a gradient
written by hand: all that does not depend on the next step's gradient is computed at once for all tokens, which leaves
one small product a step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from ..time_major import TimeMajor, time_major

Weights = Sequence[tuple[Tensor, Tensor, Tensor | None, Tensor | None]]


def gru(
    x: Tensor, weights: Weights, offsets: Tensor, h0: Tensor | None = None, return_state: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    dtype = x.dtype if x.is_cuda else torch.promote_types(x.dtype, torch.float32)  # cuDNN accumulates in float32 itself
    order = time_major(offsets)
    layers = [tuple(None if w is None else w.to(dtype) for w in layer) for layer in weights]
    if h0 is None:
        h0 = x.new_zeros(len(layers), len(offsets) - 1, layers[0][1].shape[1])
    h0 = h0.to(dtype).index_select(1, order.sequences)
    rows = x.to(dtype).index_select(0, order.tokens)
    has_gradient = torch.is_grad_enabled() and any(
        v.requires_grad for v in (x, h0, *(w for layer in layers for w in layer if w is not None))
    )
    is_packed = order.sizes and (x.is_cuda or not has_gradient)
    rows, state = (_torch_packed if is_packed else _trained)(rows, layers, h0, order)
    y = rows.index_select(0, order.positions).to(x.dtype)
    return (y, state.index_select(1, order.ranks).to(x.dtype)) if return_state else y


def _torch_packed(rows: Tensor, layers: Weights, h0: Tensor, order: TimeMajor) -> tuple[Tensor, Tensor]:
    zeros = h0.new_zeros(len(layers[0][1]))
    flat = [zeros if w is None else w for layer in layers for w in layer]
    training = torch.is_grad_enabled()  # cuDNN differentiates only what it ran in training mode
    running = order.sizes[0]  # torch takes no empty sequences: they are ranked last
    rows, state = torch._VF.gru(
        rows, torch.tensor(order.sizes), h0[:, :running].contiguous(), flat, True, len(layers), 0.0, training, False
    )
    return rows, torch.cat([state, h0[:, running:]], dim=1)


def _trained(rows: Tensor, layers: Weights, h0: Tensor, order: TimeMajor) -> tuple[Tensor, Tensor]:
    states = []
    for (w_ih, w_hh, b_ih, b_hh), h in zip(layers, h0, strict=True):
        rows, state = _Recurrence.apply(linear(rows, w_ih, b_ih), w_hh, b_hh, h, order.sizes)
        states.append(state)
    return rows, torch.stack(states)


class _Recurrence(torch.autograd.Function):
    """One layer, given the input projections of its gates (T, 3H) in the order reset, update, new."""

    @staticmethod
    def forward(ctx, inputs, w_hh, b_hh, h0, sizes):
        hidden = w_hh.shape[1]
        weight = w_hh.t().contiguous()
        bias = weight.new_zeros(3 * hidden) if b_hh is None else b_hh
        h = h0.clone()
        gates = inputs.clone()
        recurrent_new = gates.new_empty(len(gates), hidden)
        out = torch.empty_like(recurrent_new)
        scratch = gates.new_empty(len(h), 3 * hidden)
        start = 0
        for n in sizes:
            rows = slice(start, start + n)
            start += n
            recurrent = torch.addmm(bias, h[:n], weight, out=scratch[:n])
            both = gates[rows, : 2 * hidden].add_(recurrent[:, : 2 * hidden]).sigmoid_()
            reset, update = both[:, :hidden], both[:, hidden:]
            recurrent_new[rows] = recurrent[:, 2 * hidden :]
            new = gates[rows, 2 * hidden :].addcmul_(reset, recurrent_new[rows]).tanh_()
            torch.lerp(new, h[:n], update, out=out[rows])
            h[:n] = out[rows]
        ctx.save_for_backward(gates, recurrent_new, out, w_hh, h0)
        ctx.sizes, ctx.has_bias = sizes, b_hh is not None
        return out, h

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_out, grad_state):
        gates, recurrent_new, out, w_hh, h0 = ctx.saved_tensors
        reset, update, new = gates.chunk(3, dim=1)
        previous = _previous(out, h0, ctx.sizes)
        # d h / d (each gate before its activation); times the gradient of h it is that gate's gradient
        slopes = torch.empty_like(gates).unflatten(1, (3, -1))
        torch.mul(1 - update, 1 - new * new, out=slopes[:, 2])
        torch.mul(previous - new, update * (1 - update), out=slopes[:, 1])
        torch.mul(slopes[:, 2] * recurrent_new, reset * (1 - reset), out=slopes[:, 0])
        gh = grad_state.clone()
        g_inputs, g_recurrent = torch.empty_like(slopes), torch.empty_like(slopes)
        end = len(out)
        for n in reversed(ctx.sizes):
            rows = slice(end - n, end)
            end -= n
            g = gh[:n].add_(grad_out[rows])
            g_recurrent[rows] = torch.mul(slopes[rows], g[:, None], out=g_inputs[rows])
            g_recurrent[rows, 2].mul_(reset[rows])
            g.mul_(update[rows]).addmm_(g_recurrent[rows].flatten(1), w_hh)
        g_recurrent = g_recurrent.flatten(1)
        g_bias = g_recurrent.sum(0) if ctx.has_bias else None
        return g_inputs.flatten(1), g_recurrent.t() @ previous, g_bias, gh, None


def _previous(out: Tensor, h0: Tensor, sizes: list[int]) -> Tensor:
    """The state before each time-major row."""
    previous = torch.empty_like(out)
    start, before = 0, h0
    for n in sizes:
        previous[start : start + n] = before[:n]
        before = out[start : start + n]
        start += n
    return previous
