"""The passes over the tokens before and after the walk over the catalogue: `gather` puts them in the order of their
targets, `join` merges the results of the slices.

A program owns 16 tokens with their whole vectors in registers (16 x 512 floats are 64 for each thread). Tokens sorted
by target are adjacent for each tile of items, so that the gradient of the weight looks for targets in few tiles only,
and those that do not count come last and are left out. docs/gpu.md says what bounds it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tiles import block_of
from ..triton_tools import on_device_of
from .operator import padded

TOKENS = tl.constexpr(16)
_LOG2E = tl.constexpr(1.4426950408889634)


class Tokens(NamedTuple):
    """Tokens in the order of their targets, P of them with padding (a multiple of PADDED).

    order: int64 (T,), the token at each index. count: int64 (), how many tokens count; they come first.
    states: (P, D), D = block_of(d), hidden's dtype, zero beyond `count` and d.
    wanted: int32 (P,), targets, V beyond `count`. wanted_ids: int64 (P,) or None, the targets' ids.
    own: float32 (P,), the targets' logits.
    """

    order: Tensor
    count: Tensor
    states: Tensor
    wanted: Tensor
    wanted_ids: Tensor | None
    own: Tensor


def arrange(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor | None,
    bias: Tensor | None,
    ids: Tensor | None,
    ignore_index: int,
) -> Tokens:
    """Sorts and copies the tokens; without targets, token i's is item i."""
    tokens, width = hidden.shape
    places = padded(tokens)
    if target is None:
        order = torch.arange(tokens, device=hidden.device)
        by_target = order
    else:
        by_target, order = target.masked_fill(target == ignore_index, len(weight)).sort(stable=True)
    count = (by_target < len(weight)).sum()
    states = hidden.new_empty(places, block_of(width))
    wanted = order.new_empty(places, dtype=torch.int32)
    wanted_ids = None if ids is None else order.new_empty(places)
    own = hidden.new_empty(places, dtype=torch.float32)
    if places:
        with on_device_of(hidden):
            gather[(places // TOKENS.value,)](
                hidden, weight, bias, ids, by_target, order, count, states, wanted, wanted_ids, own,
                tokens, len(weight), width, hidden.stride(0), weight.stride(0),
                HAS_BIAS=bias is not None, HAS_IDS=ids is not None, BLOCK_D=states.shape[1],
            )  # fmt: skip
    return Tokens(order, count, states, wanted, wanted_ids, own)


@triton.jit
def gather(
    hidden, weight, bias, ids, by_target, order, count, states, wanted, wanted_ids, own,
    tokens, items, width, hidden_row, weight_row,
    HAS_BIAS: tl.constexpr, HAS_IDS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    places = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    depth = tl.arange(0, BLOCK_D)
    counts = places < tl.load(count)
    target = tl.load(by_target + places, mask=counts, other=items).to(tl.int64)
    token = tl.load(order + places, mask=counts, other=0)
    mask = counts[:, None] & (depth < width)[None, :]
    state = tl.load(hidden + (token * hidden_row)[:, None] + depth[None, :], mask=mask, other=0.0)
    row = tl.load(weight + (target * weight_row)[:, None] + depth[None, :], mask=mask, other=0.0)
    logit = tl.sum(state.to(tl.float32) * row.to(tl.float32), 1)
    if HAS_BIAS:
        logit += tl.load(bias + target, mask=counts, other=0.0)
    tl.store(states + places.to(tl.int64)[:, None] * BLOCK_D + depth[None, :], state)
    tl.store(wanted + places, target.to(tl.int32))
    tl.store(own + places, logit)
    if HAS_IDS:
        tl.store(wanted_ids + places, tl.load(ids + target, mask=counts, other=0))


def join(
    tokens: Tokens, weight: Tensor, parts: tuple[Tensor, Tensor, Tensor | None], share: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Merges the results of the slices (see triton_forward.py) in order.

    Returns: losses: float32 (T,), in the tokens' own order, 0 where they do not count. lse: float32 (P,), logsumexp of
    the logits at each index, +inf beyond `count`. gradient: `share` times that of the summed loss with respect to
    hidden (T, d), weight's dtype; None without products.
    """
    maxima, sums, products = parts
    total, width = len(tokens.order), weight.shape[1]
    losses, lse = tokens.own.new_empty(total), torch.empty_like(tokens.own)
    gradient = None if products is None else weight.new_empty(total, width)
    if total:
        with on_device_of(weight):
            join_slices[(len(lse) // TOKENS.value,)](
                maxima, sums, products, tokens.own, tokens.wanted, tokens.order, tokens.count, share, weight,
                losses, lse, gradient,
                total, len(lse), len(maxima), width, weight.stride(0),
                WITH_PRODUCT=products is not None, BLOCK_D=tokens.states.shape[1],
            )  # fmt: skip
    return losses, lse, gradient


@triton.jit
def join_slices(
    maxima, sums, products, own, wanted, order, count, share, weight, losses, lse, gradient,
    tokens, padded_tokens, slice_count, width, weight_row,
    WITH_PRODUCT: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    places = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    counts = places < tl.load(count)
    largest = tl.full((TOKENS,), float("-inf"), tl.float32)
    for part in range(slice_count):
        largest = tl.maximum(largest, tl.load(maxima + part * padded_tokens + places, mask=counts, other=0.0))
    total = tl.zeros((TOKENS,), tl.float32)
    for part in range(slice_count):
        at = part * padded_tokens + places
        factor = tl.exp2((tl.load(maxima + at, mask=counts, other=0.0) - largest) * _LOG2E)
        total += factor * tl.load(sums + at, mask=counts, other=1.0)
    logsum = largest + tl.log(total)
    is_token = places < tokens
    token = tl.load(order + places, mask=is_token, other=0)
    tl.store(losses + token, tl.where(counts, logsum - tl.load(own + places), 0.0), mask=is_token)
    tl.store(lse + places, tl.where(counts, logsum, float("inf")))
    if WITH_PRODUCT:
        depth = tl.arange(0, BLOCK_D)
        acc = tl.zeros((TOKENS, BLOCK_D), tl.float32)
        for part in range(slice_count):
            at = part * padded_tokens + places
            factor = tl.exp2((tl.load(maxima + at, mask=counts, other=0.0) - largest) * _LOG2E) / total
            rows = products + at.to(tl.int64)[:, None] * BLOCK_D + depth[None, :]
            acc += factor[:, None] * tl.load(rows, mask=counts[:, None], other=0.0)
        target = tl.load(wanted + places).to(tl.int64)
        in_width = (depth < width)[None, :]
        row = tl.load(
            weight + (target * weight_row)[:, None] + depth[None, :], mask=counts[:, None] & in_width, other=0.0
        )
        acc = tl.where(counts[:, None], (acc - row.to(tl.float32)) * tl.load(share), 0.0)
        tl.store(
            gradient + (token * width)[:, None] + depth[None, :],
            acc.to(gradient.dtype.element_ty),
            mask=is_token[:, None] & in_width,
        )
