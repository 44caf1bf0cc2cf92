"""The specification, in float64: one sequence, one head, one query at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import silu


def time_bucket(gap: int, num_buckets: int) -> int:
    """Bucket of a time gap in seconds: floor(log(max(1, |gap|)) / 0.301), at most the table's last."""
    return min(math.floor(math.log(max(1, abs(gap))) / 0.301), num_buckets - 1)


def sees(i: int, j: int, history: int, max_attn_len: int, contextual_seq_len: int) -> bool:
    """Whether the token at position i of a sequence sees that at j: what the operator's arguments say, pair by pair.

    `history` tokens come first, then the targets; the prefix ends with the history.
    """
    prefix = min(contextual_seq_len, history)
    if i == j:
        return True
    if j >= history:  # a target is seen by itself alone
        return False
    if i < prefix:
        return True
    steps = min(i, history) - max(j, prefix - 1)  # the prefix is one step, and so are all targets
    return steps > 0 and (max_attn_len == 0 or steps <= max_attn_len)


def hstu_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    max_len: int,
    scale: float = 1.0,
    position_bias: Tensor | None = None,
    time_bias: Tensor | None = None,
    timestamps: Tensor | None = None,
    num_targets: Tensor | None = None,
    max_attn_len: int = 0,
    contextual_seq_len: int = 0,
) -> Tensor:
    rows = []
    targets = [0] * (len(offsets) - 1) if num_targets is None else num_targets.tolist()
    for b, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        history = end - start - targets[b]
        for i in range(start, end):
            limits = history, max_attn_len, contextual_seq_len
            keys = [j for j in range(start, end) if sees(i - start, j - start, *limits)]
            scores = scale * torch.einsum("hd,jhd->hj", q[i].double(), k[keys].double())
            if position_bias is not None:
                scores = scores + position_bias.double()[[i - j + max_len - 1 for j in keys]]
            if time_bias is not None:
                gaps = (timestamps[i] - timestamps[keys]).tolist()
                scores = scores + time_bias.double()[[time_bucket(gap, len(time_bias)) for gap in gaps]]
            rows.append(torch.einsum("hj,jhd->hd", silu(scores) / max_len, v[keys].double()))
    return torch.stack(rows).to(v.dtype) if rows else (q.sum() + k.sum()).to(v.dtype) * v
