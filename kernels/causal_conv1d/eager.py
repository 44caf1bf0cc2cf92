"""Plain torch: K shifted multiply-adds over rows in which K - 1 rows of state precede each sequence.

Those rows (zeros without a state) make the window of every token a plain slice, so no mask is needed and nothing
crosses from one sequence into the next. The rows are processed in blocks that stay in the L2 cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import silu

from ..memory import remember

_BLOCK_ELEMENTS = 1 << 18  # 1 MB of float32


@dataclass(frozen=True)
class _Rows:
    """Indices among the M = T + B (K - 1) rows."""

    tokens: Tensor  # (T,) int64
    initial: Tensor  # (B * (K - 1),) int64: the state before each sequence
    final: Tensor  # (B * (K - 1),) int64: the last K - 1 rows of each sequence and its state


def _rows(offsets: Tensor, before: int) -> _Rows:
    shift = before * torch.arange(len(offsets) - 1, device=offsets.device)
    place = torch.arange(before, device=offsets.device)
    lengths = offsets.diff()
    tokens = torch.arange(int(offsets[-1]), device=offsets.device) + (shift + before).repeat_interleave(lengths)
    initial, final = ((start + shift)[:, None] + place for start in (offsets[:-1], offsets[1:]))
    return _Rows(tokens, initial.flatten(), final.flatten())


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
    rows = remember(offsets, f"causal_conv1d {before}", lambda: _rows(offsets, before))
    extended = x.new_zeros(len(rows.tokens) + len(rows.initial), x.shape[1]).index_copy(0, rows.tokens, x)
    if initial_state is not None:
        extended = extended.index_copy(0, rows.initial, initial_state.transpose(1, 2).flatten(0, 1))
    y = _Convolution.apply(extended, weight, bias, rows.tokens - before)
    if activation == "silu":
        y = silu(y)
    if not return_state:
        return y
    state = extended.index_select(0, rows.final).unflatten(0, (len(offsets) - 1, before)).transpose(1, 2)
    return y, state.contiguous()


class _Convolution(torch.autograd.Function):
    """out_i = bias + sum_k x[windows_i + k] * weight[:, k]."""

    @staticmethod
    def forward(ctx, x, weight, bias, windows):
        ctx.save_for_backward(x, weight, windows)
        ctx.has_bias = bias is not None
        taps = weight.t().contiguous()
        y = x.new_empty(max(0, len(x) - len(taps) + 1), x.shape[1])
        for start, end in _blocks(y):
            out = y[start:end]
            torch.mul(x[start:end], taps[0], out=out)
            for k in range(1, len(taps)):
                out.addcmul_(x[start + k : end + k], taps[k])
            if bias is not None:
                out.add_(bias)
        return y.index_select(0, windows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_out):
        x, weight, windows = ctx.saved_tensors
        taps = weight.t().contiguous()
        gy = grad_out.new_zeros(max(0, len(x) - len(taps) + 1), x.shape[1]).index_copy_(0, windows, grad_out)
        gx = torch.zeros_like(x)
        g_taps = torch.zeros_like(taps, dtype=torch.promote_types(taps.dtype, torch.float32))
        scratch = gy.new_empty(min(len(gy), _block_rows(gy)), gy.shape[1])
        for start, end in _blocks(gy):
            g, product = gy[start:end], scratch[: end - start]
            for k in range(len(taps)):
                gx[start + k : end + k].addcmul_(g, taps[k])
                torch.mul(g, x[start + k : end + k], out=product)
                g_taps[k] += product.sum(0, dtype=g_taps.dtype)
        g_bias = grad_out.sum(0) if ctx.has_bias else None
        return gx, g_taps.t().to(weight.dtype), g_bias, None


def _block_rows(y: Tensor) -> int:
    return max(1, _BLOCK_ELEMENTS // max(1, y.shape[1]))


def _blocks(y: Tensor) -> Iterator[tuple[int, int]]:
    size = _block_rows(y)
    return ((start, min(start + size, len(y))) for start in range(0, len(y), size))
