"""Packed inputs that the encoders' tests share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from uqabench.data.catalogue import Catalogue


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Packed:
    x: Tensor
    offsets: Tensor
    timestamps: Tensor


@pytest.fixture
def packed() -> Callable[..., Packed]:
    """`packed(lengths, width, seed)`: random inputs, and times that rise within each sequence with some ties."""

    def make(lengths: list[int], width: int = 32, seed: int = 0) -> Packed:
        generator = torch.Generator().manual_seed(seed)
        total = sum(lengths)
        x = torch.randn(total, width, generator=generator)
        offsets = torch.tensor([0, *lengths]).cumsum(0)
        gaps = (torch.rand(total, generator=generator) * 16).exp2().long() - 1
        return Packed(x, offsets, 1_500_000_000 + gaps.cumsum(0))

    return make


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """Nine items; no shops, some items without a category or brand, a title without tokens."""
    generator = np.random.Generator(np.random.Philox(3))
    values = {
        "title": [f"title {i}" for i in range(7)],
        "category": ["a", "b", "c"],
        "brand": ["x", "y"],
        "shop": [],
        "seller": ["s"],
    }
    codes = {name: generator.integers(-1, len(v), 9).astype(np.int32) for name, v in values.items()}
    codes["title"] = np.array([0, 1, 2, 3, 4, 5, 6, 0, 1], np.int32)
    codes["category"] = np.array([0, -1, 1, 2, 0, 1, -1, 2, 2], np.int32)
    tokens = {}
    for name, strings in values.items():
        lengths = generator.integers(1, 5, len(strings))
        if name == "title":
            lengths[2] = 0
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        tokens[name] = offsets, generator.integers(0, 11, offsets[-1]).astype(np.int32)
    ids = np.array([f"item{i}" for i in range(9)], object)
    popularity = np.arange(1, 10, dtype=np.int64)
    return Catalogue(ids, values, codes, popularity, tokens, token_vocab_size=11)
