"""Plain torch: one step over time at once for all sequences that still run, with a gradient written by hand.

The state is laid out (sequences, N, D), D innermost, so that every product broadcasts along a contiguous row, and
the tokens time-major (`time_major`), so that a step is a slice. Autograd through such a loop would record about ten
nodes a step and keep every state; here the forward pass keeps one state in sqrt(L) and the backward pass recomputes
those between, sqrt(L) at a time: beside tensors of the inputs' size, about 3 sqrt(L) B D N elements.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import silu, softplus

from ..time_major import TimeMajor, time_major


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
    dtype = torch.promote_types(u.dtype, torch.float32)  # a recurrence in bf16 would lose what it accumulates
    order = time_major(offsets)
    x, step = u.to(dtype), delta.to(dtype)
    if delta_bias is not None:
        step = step + delta_bias.to(dtype)
    if delta_softplus:
        step = softplus(step)
    if initial_state is not None:
        initial_state = initial_state.to(dtype)
    keep = torch.is_grad_enabled()  # within forward it is always off
    y, state = _Scan.apply(x, step, A.to(dtype), B.to(dtype), C.to(dtype), initial_state, order, keep)
    if D is not None:
        y = torch.addcmul(y, x, D.to(dtype))
    if z is not None:
        y = y * silu(z.to(dtype))
    y = y.to(u.dtype)
    return (y, state) if return_state else y


class _Scan(torch.autograd.Function):
    """h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t, y_t = C_t h_t, all of one floating dtype."""

    @staticmethod
    def forward(ctx, u, delta, A, B, C, initial_state, order: TimeMajor, keep: bool):
        x, step, b, c = (v.index_select(0, order.tokens) for v in (u, delta, B, C))
        decay_rate = A.t().contiguous()
        h = _ranked_state(initial_state, order, decay_rate)
        every = max(1, math.isqrt(len(order.sizes)))
        y = torch.empty_like(x)
        kept = []
        decay = torch.empty_like(h)
        start = 0
        for t, n in enumerate(order.sizes):
            if keep and t % every == 0:
                kept.append(h[:n].clone())
            rows = slice(start, start + n)
            _advance(h[:n], h[:n], decay[:n], step[rows], decay_rate, b[rows], step[rows] * x[rows])
            torch.bmm(c[rows, None, :], h[:n], out=y[rows, None, :])
            start += n
        if keep:
            ctx.save_for_backward(x, step, b, c, decay_rate, *kept)
            ctx.order, ctx.every, ctx.has_state = order, every, initial_state is not None
        return y.index_select(0, order.positions), h.index_select(0, order.ranks).transpose(1, 2).contiguous()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_y, grad_state):
        x, step, b, c, decay_rate, *kept = ctx.saved_tensors
        order, every = ctx.order, ctx.every
        gy = grad_y.index_select(0, order.tokens)
        gh = _ranked_state(grad_state, order, decay_rate)
        pulse = step * x
        g_step, g_pulse, gb, gc = (torch.empty_like(v) for v in (step, x, b, c))
        g_rate = torch.zeros_like(gh)
        largest = len(kept[0]) if kept else 0
        states, decays = (gh.new_empty(every + 1, largest, *gh.shape[1:]) for _ in range(2))
        scratch = gh.new_empty(largest, *gh.shape[1:])
        end = len(step)
        for first in reversed(range(0, len(order.sizes), every)):
            sizes = order.sizes[first : first + every]
            start = end - sum(sizes)
            states[0, : sizes[0]] = kept[first // every]
            for i, n in enumerate(sizes):
                rows = slice(start, start + n)
                _advance(states[i, :n], states[i + 1, :n], decays[i, :n], step[rows], decay_rate, b[rows], pulse[rows])
                start += n
            for i, n in reversed(list(enumerate(sizes))):
                rows = slice(end - n, end)
                end -= n
                g, tmp = gh[:n], scratch[:n]
                g.addcmul_(c[rows, :, None], gy[rows, None, :])
                torch.mul(states[i + 1, :n], gy[rows, None, :], out=tmp)
                torch.sum(tmp, 2, out=gc[rows])
                torch.bmm(b[rows, None, :], g, out=g_pulse[rows, None, :])
                torch.mul(g, pulse[rows, None, :], out=tmp)
                torch.sum(tmp, 2, out=gb[rows])
                g.mul_(decays[i, :n])  # now the gradient of the state before this step
                torch.mul(g, states[i, :n], out=tmp)  # and this that of delta * A
                g_rate[:n].addcmul_(tmp, step[rows, None, :])
                torch.sum(tmp.mul_(decay_rate), 1, out=g_step[rows])
        g_step.addcmul_(g_pulse, x)
        gu = g_pulse.mul_(step)
        gu, g_step, gb, gc = (v.index_select(0, order.positions) for v in (gu, g_step, gb, gc))
        g_initial = gh.index_select(0, order.ranks).transpose(1, 2) if ctx.has_state else None
        return gu, g_step, g_rate.sum(0).t(), gb, gc, g_initial, None, None


def _advance(
    before: Tensor, after: Tensor, decay: Tensor, step: Tensor, decay_rate: Tensor, b: Tensor, pulse: Tensor
) -> None:
    """One step: fills decay = exp(delta A) and `after` (may be `before`), both (n, N, D)."""
    torch.mul(step[:, None, :], decay_rate, out=decay).exp_()
    torch.mul(before, decay, out=after).addcmul_(b[:, :, None], pulse[:, None, :])


def _ranked_state(state: Tensor | None, order: TimeMajor, decay_rate: Tensor) -> Tensor:
    """A state (B, D, N), or zeros, as a fresh (B, N, D) tensor in the order of the ranks."""
    if state is None:
        return decay_rate.new_zeros(len(order.sequences), *decay_rate.shape)
    return state.transpose(1, 2).index_select(0, order.sequences).contiguous()
