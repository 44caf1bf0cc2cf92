"""The specification, in float64: one sequence, one head, one query at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import silu


def time_bucket(gap: int, num_buckets: int) -> int:
    """Bucket of a time gap in seconds: floor(log(max(1, |gap|)) / 0.301), at most the table's last."""
    return min(math.floor(math.log(max(1, abs(gap))) / 0.301), num_buckets - 1)


def hstu_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    *,
    max_len: int,
    scale: float = 1.0,
    position_bias: Tensor | None = None,
    time_bias: Tensor | None = None,
    timestamps: Tensor | None = None,
) -> Tensor:
    rows = []
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        for i in range(start, end):
            scores = scale * torch.einsum("hd,jhd->hj", q[i].double(), k[start : i + 1].double())
            if position_bias is not None:
                scores = scores + position_bias.double()[[i - j + max_len - 1 for j in range(start, i + 1)]]
            if time_bias is not None:
                gaps = (timestamps[i] - timestamps[start : i + 1]).tolist()
                scores = scores + time_bias.double()[[time_bucket(gap, len(time_bias)) for gap in gaps]]
            rows.append(torch.einsum("hj,jhd->hd", silu(scores) / max_len, v[start : i + 1].double()))
    return torch.stack(rows).to(v.dtype) if rows else (q.sum() + k.sum()).to(v.dtype) * v
