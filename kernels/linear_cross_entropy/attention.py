"""The softmax over the catalogue as attention of tokens over items, whose keys and values both are the catalogue.

A variant of triton_forward.py, to be measured beside it: inside `by_attention` the forward pass of the "triton" backend
takes torch's varlen_attn where it can. Attention's logsumexp is the loss's, and its output the softmax's product with
the catalogue; a slice of the catalogue is a sequence of keys, to which all tokens are the queries. That product is
rounded to bf16, where triton_forward.py keeps fp32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.nn import functional as F

WIDEST = 256
"""Components of a head that fused attention takes."""

is_asked_for: ContextVar[bool] = ContextVar("is_asked_for", default=False)


@contextmanager
def by_attention() -> Iterator[None]:
    """Within the block, losses with a gradient of `hidden` come by attention, where dtype and width allow it."""
    token = is_asked_for.set(True)
    try:
        yield
    finally:
        is_asked_for.reset(token)


def takes(weight: Tensor, bias: Tensor | None, ids: Tensor | None) -> bool:
    """Whether attention is asked for, and has no bias or mask to add."""
    fits = weight.dtype == torch.bfloat16 and weight.shape[1] % 8 == 0 and weight.shape[1] <= WIDEST
    return is_asked_for.get() and fits and bias is None and ids is None


def slice_softmax(states: Tensor, weight: Tensor, count: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """What triton_forward.slice_softmax returns, for `count` slices of `length` items each but the last: (S, P),
    (S, P) and (S, P, D). The sums are relative to the logsumexp, not to the maximum: ones.

    states: (P, D), zero from the weight's width on. weight: (V, d).
    """
    places, block_d = states.shape
    items, width = weight.shape
    steps = torch.arange(count + 1, dtype=torch.int32, device=weight.device)
    queries = states[:, :width].repeat(count, 1)
    out, lse = attend(queries, weight, steps * places, (steps * length).clamp(max=items), places, length)
    lse = lse.reshape(count, places).float()
    products = F.pad(out.float(), (0, block_d - width)).reshape(count, places, block_d)
    return lse, torch.ones_like(lse), products


def attend(
    queries: Tensor, items: Tensor, query_bounds: Tensor, item_bounds: Tensor, most_queries: int, most_items: int
) -> tuple[Tensor, Tensor]:
    """Attention (n, d) of each sequence of queries over its items, unscaled, and the logsumexp of its logits (n,)."""
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    keys = items.detach()[:, None]
    sizes = (query_bounds, item_bounds, most_queries, most_items)
    out, lse = varlen_attn(queries[:, None], keys, keys, *sizes, scale=1.0, return_aux=AuxRequest(lse=True))
    return out.squeeze(1), lse.flatten()
