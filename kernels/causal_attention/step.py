"""Causal softmax attention of new tokens over cached keys and values, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..key_values import Joined, step_groups

# The bound on a group's pairs of queries and keys, of which each head has a mask's worth of scores.
_CELLS = 2**20


def eager_step(q: Tensor, joined: Joined, scale: float) -> Tensor:
    """Outputs (T, H, Dv) of the new tokens."""
    k, v = joined.keys.k, joined.keys.v
    out = v.new_empty(q.shape[0], *v.shape[1:])
    for group in step_groups(joined, _CELLS // q.shape[1]):
        heads_first = (x.transpose(1, 2) for x in (q[group.queries], k[group.rows], v[group.rows]))
        seen = (group.places <= group.positions[:, :, None])[:, None]
        attended = scaled_dot_product_attention(*heads_first, attn_mask=seen, scale=scale)
        out = out.index_put((group.queries,), attended.transpose(1, 2))
    return out


def reference_step(q: Tensor, joined: Joined, scale: float) -> Tensor:
    """The specification, in float64: one history, one new token at a time."""
    k, v = joined.keys.k.double(), joined.keys.v.double()
    rows = []
    starts = joined.keys.offsets.tolist()
    for start, before, new in zip(starts[:-1], joined.before.tolist(), joined.new.tolist(), strict=True):
        for place in range(before, before + new):
            keys = slice(start, start + place + 1)
            scores = scale * torch.einsum("hd,jhd->hj", q[len(rows)].double(), k[keys])
            rows.append(torch.einsum("hj,jhd->hd", scores.softmax(-1), v[keys]))
    return torch.stack(rows).to(q.dtype) if rows else joined.keys.v[:0]
