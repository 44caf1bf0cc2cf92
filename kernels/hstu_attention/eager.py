"""HSTU attention in plain torch: batched products over groups of similar length, one block of queries at a time.

The backward pass recomputes the scores, so that nothing of size L x L outlives a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import silu

from ..ragged import Group, length_groups
from .buckets import time_buckets

# Queries of a block. Half of the diagonal block is masked: smaller blocks save products, larger ones run faster.
_BLOCK = 64
# Scores held at once (floats). 2**18 is 1 MiB: it stays in a core's cache between the product and SiLU.
_CELLS = 2**18


class Settings(NamedTuple):
    """What the forward and backward passes share beside q, k and v."""

    offsets: Tensor
    max_len: int
    scale: float
    position_bias: Tensor | None
    time_bias: Tensor | None
    timestamps: Tensor | None


def _heads_first(x: Tensor) -> Tensor:
    """(G, L, H, D) to (G * H, L, D)."""
    return x.transpose(1, 2).flatten(0, 1)


def _tokens_first(group: Group, x: Tensor, heads: int) -> Tensor:
    """(G * H, L, D) to the group's real tokens (n, H, D)."""
    return group.real(x.unflatten(0, (-1, heads)).transpose(1, 2))


def _blocks(length: int) -> Iterator[tuple[int, int]]:
    for begin in range(0, length, _BLOCK):
        yield begin, min(begin + _BLOCK, length)


class _Bias:
    """The bias of one group's blocks, and the tables' gradients."""

    def __init__(self, settings: Settings, group: Group, heads: int) -> None:
        self.settings, self.heads = settings, heads
        self.times = None if settings.time_bias is None else group.gather(settings.timestamps)

    def _positions(self, begin: int, end: int) -> Tensor:
        i = torch.arange(begin, end, device=self.settings.offsets.device)[:, None]
        j = torch.arange(end, device=i.device)
        return i - j + (self.settings.max_len - 1)

    def _buckets(self, begin: int, end: int) -> Tensor:
        gaps = self.times[:, begin:end, None] - self.times[:, None, :end]
        return time_buckets(gaps, len(self.settings.time_bias))

    def add_(self, scores: Tensor, begin: int, end: int) -> Tensor:
        """Adds the bias to scores (G * H, end - begin, end)."""
        if self.settings.position_bias is not None:
            scores += self.settings.position_bias[self._positions(begin, end)]
        if self.settings.time_bias is not None:
            scores.unflatten(0, (-1, self.heads)).add_(self.settings.time_bias[self._buckets(begin, end)][:, None])
        return scores

    def accumulate(self, grad: Tensor, begin: int, end: int, position: Tensor, time: Tensor) -> None:
        """Adds the scores' gradients (G * H, end - begin, end) to those of the tables."""
        if self.settings.position_bias is not None:
            position.index_add_(0, self._positions(begin, end).flatten(), grad.sum(0, dtype=position.dtype).flatten())
        if self.settings.time_bias is not None:
            over_heads = grad.unflatten(0, (-1, self.heads)).sum(1, dtype=time.dtype)
            time.index_add_(0, self._buckets(begin, end).flatten(), over_heads.flatten())


def _scores(q: Tensor, k: Tensor, bias: _Bias, begin: int, end: int) -> Tensor:
    """Scores with bias of one block, before SiLU, in fp32 at least."""
    scores = (q[:, begin:end] @ k[:, :end].mT).to(torch.promote_types(q.dtype, torch.float32))
    return bias.add_(scores.mul_(bias.settings.scale), begin, end)


def _mask_(x: Tensor, begin: int, end: int) -> Tensor:
    """Zeroes, in a block (…, end - begin, end), the keys after their query."""
    x[..., begin:end].tril_()
    return x


def forward(q: Tensor, k: Tensor, v: Tensor, settings: Settings) -> Tensor:
    """The operator's output (T, H, Dv)."""
    out = torch.empty_like(v, memory_format=torch.contiguous_format)
    heads = q.shape[1]
    for group in length_groups(settings.offsets, _CELLS // heads):
        gq, gk, gv = (_heads_first(group.gather(x)) for x in (q, k, v))
        bias = _Bias(settings, group, heads)
        go = torch.empty_like(gv)
        for begin, end in _blocks(group.length):
            weights = _mask_(silu(_scores(gq, gk, bias, begin, end), inplace=True), begin, end)
            torch.bmm(weights.to(v.dtype), gv[:, :end], out=go[:, begin:end])
        out.index_copy_(0, group.tokens, _tokens_first(group, go, heads))
    return out.div_(settings.max_len)


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, settings: Settings
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, position_bias and time_bias (the last two empty where there is no table)."""
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    wide = torch.promote_types(q.dtype, torch.float32)
    tables = [
        q.new_zeros(0 if table is None else len(table), dtype=wide)
        for table in (settings.position_bias, settings.time_bias)
    ]
    heads = q.shape[1]
    grad = grad / settings.max_len
    for group in length_groups(settings.offsets, _CELLS // heads):
        gq, gk, gv = (_heads_first(group.gather(x)) for x in (q, k, v))
        gg = _heads_first(group.gather_zero_padded(grad))
        bias = _Bias(settings, group, heads)
        gdq, gdk, gdv = torch.empty_like(gq), torch.zeros_like(gk), torch.zeros_like(gv)
        for begin, end in _blocks(group.length):
            scores = _scores(gq, gk, bias, begin, end)
            weights = _mask_(silu(scores), begin, end).to(v.dtype)
            gdv[:, :end].baddbmm_(weights.mT, gg[:, begin:end])
            d_weights = _mask_((gg[:, begin:end] @ gv[:, :end].mT).to(wide), begin, end)
            d_scores = torch.ops.aten.silu_backward(d_weights, scores)
            bias.accumulate(d_scores, begin, end, *tables)
            d_scores = d_scores.to(q.dtype)
            torch.baddbmm(gdq[:, begin:end], d_scores, gk[:, :end], beta=0, alpha=settings.scale, out=gdq[:, begin:end])
            gdk[:, :end].baddbmm_(d_scores.mT, gq[:, begin:end], alpha=settings.scale)
        for whole, part in ((dq, gdq), (dk, gdk), (dv, gdv)):
            whole.index_copy_(0, group.tokens, _tokens_first(group, part, heads))
    position, time = (table.to(q.dtype) for table in tables)
    return dq, dk, dv, position, time
