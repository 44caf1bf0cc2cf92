"""The integer gaps at which time buckets begin, so that every backend puts a gap in the same bucket."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

_LARGEST = 2**63 - 1
# Buckets 0 .. 145 are those that an int64 gap reaches.
MOST_BUCKETS = 146


@cache
def bucket_starts(num_buckets: int) -> tuple[int, ...]:
    """The smallest gap (seconds) of buckets 1 .. num_buckets - 1: bucket k begins at ceil(exp(0.301 k)).

    A bucket that no int64 gap reaches begins at the largest int64.
    """
    return tuple(
        _LARGEST if 0.301 * k >= math.log(_LARGEST) else math.ceil(math.exp(0.301 * k)) for k in range(1, num_buckets)
    )


def time_buckets(gaps: Tensor, num_buckets: int) -> Tensor:
    """Bucket int64 of each gap int64 (any sign): floor(log(max(1, |gap|)) / 0.301), at most num_buckets - 1."""
    starts = torch.tensor(bucket_starts(num_buckets), dtype=torch.int64, device=gaps.device)
    return torch.bucketize(gaps.abs(), starts, right=True)
