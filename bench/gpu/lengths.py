"""Ragged batches to measure on: lengths from a Zipf or a uniform distribution, cut off at a longest."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

EXPONENT = 1.2
"""Of the Zipf distribution: many users are short, a few are as long as they may be."""


def draw(kind: str, longest: int, tokens: int, seed: int = 0) -> list[int]:
    """Lengths from 1 to `longest` that add up to `tokens`: "zipf", "uniform", or "full" (all the longest)."""
    rng = np.random.default_rng(seed)
    lengths: list[int] = []
    left = tokens
    weights = np.arange(1, longest + 1) ** -EXPONENT if kind == "zipf" else np.ones(longest)
    weights /= weights.sum()
    while left:
        drawn = longest if kind == "full" else int(rng.choice(longest, p=weights)) + 1
        lengths.append(min(drawn, left))
        left -= lengths[-1]
    return lengths


def offsets_of(lengths: list[int], device: str) -> Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0).to(device)
