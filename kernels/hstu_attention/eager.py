"""HSTU attention in plain torch: batched products over groups of similar length, one block of queries at a time.

The backward pass recomputes the scores, so that nothing of size L x L outlives a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import silu

from ..ragged import Group, length_groups
from .buckets import time_buckets
from .settings import Settings
from .visible import Steps, history_lengths

# Queries of a block. Half of the diagonal block is masked: smaller blocks save products, larger ones run faster.
_BLOCK = 64
# Scores held at once (floats). 2**18 is 1 MiB: it stays in a core's cache between the product and SiLU.
_CELLS = 2**18


class _Block(NamedTuple):
    """Queries [begin, end) and the keys [first, last), which hold all that those see."""

    begin: int
    end: int
    first: int
    last: int


def _heads_first(x: Tensor) -> Tensor:
    """(G, L, H, D) to (G * H, L, D)."""
    return x.transpose(1, 2).flatten(0, 1)


def _tokens_first(group: Group, x: Tensor, heads: int) -> Tensor:
    """(G * H, L, D) to the group's real tokens (n, H, D)."""
    return group.real(x.unflatten(0, (-1, heads)).transpose(1, 2))


class _Pairs(Protocol):
    """Which pairs of queries and keys of a group count."""

    def blocks(self) -> Iterator[_Block]: ...

    def keep_(self, x: Tensor, block: _Block) -> Tensor:
        """Zeroes, in x (G * H, end - begin, last - first), the pairs that do not count."""
        ...


class _Causal:
    """Keys up to the query."""

    def __init__(self, length: int) -> None:
        self.length = length

    def blocks(self) -> Iterator[_Block]:
        for begin in range(0, self.length, _BLOCK):
            end = min(begin + _BLOCK, self.length)
            yield _Block(begin, end, 0, end)

    def keep_(self, x: Tensor, block: _Block) -> Tensor:
        x[..., block.begin :].tril_()
        return x


class _Limited:
    """What targets, window and prefix leave."""

    def __init__(self, settings: Settings, group: Group, heads: int) -> None:
        history = history_lengths(settings.offsets, settings.limits)[group.members]
        self.steps = Steps(history, settings.limits, settings.offsets.device)
        self.length, self.heads = group.length, heads
        self._hidden: tuple[_Block, Tensor] | None = None

    def blocks(self) -> Iterator[_Block]:
        for begin in range(0, self.length, _BLOCK):
            end = min(begin + _BLOCK, self.length)
            yield _Block(begin, end, self.steps.first_key(begin), self.steps.last_key(begin, end))

    def keep_(self, x: Tensor, block: _Block) -> Tensor:
        if self._hidden is None or self._hidden[0] != block:
            queries = torch.arange(block.begin, block.end, device=x.device)
            keys = torch.arange(block.first, block.last, device=x.device)
            self._hidden = block, ~self.steps.seen(queries, keys)[:, None]
        x.unflatten(0, (-1, self.heads)).masked_fill_(self._hidden[1], 0.0)
        return x


def _pairs(settings: Settings, group: Group, heads: int) -> _Pairs:
    return _Causal(group.length) if settings.limits.are_none else _Limited(settings, group, heads)


class _Bias:
    """The bias of one group's blocks, and the tables' gradients."""

    def __init__(self, settings: Settings, group: Group, heads: int) -> None:
        self.settings, self.heads = settings, heads
        self.times = None if settings.time_bias is None else group.gather(settings.timestamps)

    def _positions(self, block: _Block) -> Tensor:
        i = torch.arange(block.begin, block.end, device=self.settings.offsets.device)[:, None]
        j = torch.arange(block.first, block.last, device=i.device)
        return i - j + (self.settings.max_len - 1)

    def _buckets(self, block: _Block) -> Tensor:
        gaps = self.times[:, block.begin : block.end, None] - self.times[:, None, block.first : block.last]
        return time_buckets(gaps, len(self.settings.time_bias))

    def add_(self, scores: Tensor, block: _Block) -> Tensor:
        """Adds the bias to scores (G * H, end - begin, last - first)."""
        if self.settings.position_bias is not None:
            scores += self.settings.position_bias[self._positions(block)]
        if self.settings.time_bias is not None:
            scores.unflatten(0, (-1, self.heads)).add_(self.settings.time_bias[self._buckets(block)][:, None])
        return scores

    def accumulate(self, grad: Tensor, block: _Block, position: Tensor, time: Tensor) -> None:
        """Adds the scores' gradients (G * H, end - begin, last - first) to those of the tables."""
        if self.settings.position_bias is not None:
            position.index_add_(0, self._positions(block).flatten(), grad.sum(0, dtype=position.dtype).flatten())
        if self.settings.time_bias is not None:
            over_heads = grad.unflatten(0, (-1, self.heads)).sum(1, dtype=time.dtype)
            time.index_add_(0, self._buckets(block).flatten(), over_heads.flatten())


def _scores(q: Tensor, k: Tensor, bias: _Bias, block: _Block) -> Tensor:
    """Scores with bias of one block, before SiLU, in fp32 at least."""
    products = q[:, block.begin : block.end] @ k[:, block.first : block.last].mT
    scores = products.to(torch.promote_types(q.dtype, torch.float32))
    return bias.add_(scores.mul_(bias.settings.scale), block)


def forward(q: Tensor, k: Tensor, v: Tensor, *given: Any) -> Tensor:
    settings = Settings(*given)
    out = torch.empty_like(v, memory_format=torch.contiguous_format)
    heads = q.shape[1]
    for group in length_groups(settings.offsets, _CELLS // heads):
        gq, gk, gv = (_heads_first(group.gather(x)) for x in (q, k, v))
        bias = _Bias(settings, group, heads)
        go = torch.empty_like(gv)
        pairs = _pairs(settings, group, heads)
        for block in pairs.blocks():
            weights = pairs.keep_(silu(_scores(gq, gk, bias, block), inplace=True), block)
            torch.bmm(weights.to(v.dtype), gv[:, block.first : block.last], out=go[:, block.begin : block.end])
        out.index_copy_(0, group.tokens, _tokens_first(group, go, heads))
    return out.div_(settings.max_len)


def backward(grad_y: Tensor, q: Tensor, k: Tensor, v: Tensor, *given: Any) -> tuple[Tensor, ...]:
    """The gradients of the two tables are empty where there is no table."""
    settings = Settings(*given)
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    wide = torch.promote_types(q.dtype, torch.float32)
    tables = [
        q.new_zeros(0 if table is None else len(table), dtype=wide)
        for table in (settings.position_bias, settings.time_bias)
    ]
    heads = q.shape[1]
    grad = grad_y / settings.max_len
    for group in length_groups(settings.offsets, _CELLS // heads):
        gq, gk, gv = (_heads_first(group.gather(x)) for x in (q, k, v))
        gg = _heads_first(group.gather_zero_padded(grad))
        bias = _Bias(settings, group, heads)
        gdq, gdk, gdv = torch.empty_like(gq), torch.zeros_like(gk), torch.zeros_like(gv)
        pairs = _pairs(settings, group, heads)
        for block in pairs.blocks():
            queries, keys = slice(block.begin, block.end), slice(block.first, block.last)
            scores = _scores(gq, gk, bias, block)
            weights = pairs.keep_(silu(scores), block).to(v.dtype)
            gdv[:, keys].baddbmm_(weights.mT, gg[:, queries])
            d_weights = pairs.keep_((gg[:, queries] @ gv[:, keys].mT).to(wide), block)
            d_scores = torch.ops.aten.silu_backward(d_weights, scores)
            bias.accumulate(d_scores, block, *tables)
            d_scores = d_scores.to(q.dtype)
            torch.baddbmm(gdq[:, queries], d_scores, gk[:, keys], beta=0, alpha=settings.scale, out=gdq[:, queries])
            gdk[:, keys].baddbmm_(d_scores.mT, gq[:, queries], alpha=settings.scale)
        for whole, part in ((dq, gdq), (dk, gdk), (dv, gdv)):
            whole.index_copy_(0, group.tokens, _tokens_first(group, part, heads))
    position, time = (table.to(q.dtype) for table in tables)
    return dq, dk, dv, position, time
