"""What the suites share: packed inputs of the published lengths, and a training step on a chosen backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from bench.rows.encoders import LENGTHS
from uqabench.kernels import backend

SHORT_LENGTHS = LENGTHS[:4]
"""802 tokens in 4 sequences: for operators whose plain-torch form takes seconds a call at all 2,193."""


@pytest.fixture
def offsets() -> Tensor:
    return torch.tensor([0, *LENGTHS]).cumsum(0)


@pytest.fixture
def short_offsets() -> Tensor:
    return torch.tensor([0, *SHORT_LENGTHS]).cumsum(0)


@pytest.fixture
def train(chosen: str) -> Iterator[Callable]:
    """`train(call, leaves)` makes a function that runs `call` forward and backward on the chosen backend."""

    def make(call: Callable[[], Tensor], leaves: list[Tensor]) -> Callable[[], None]:
        cotangent = torch.randn(call().shape, generator=torch.Generator().manual_seed(9))

        def step() -> None:
            for leaf in leaves:
                leaf.grad = None
            call().backward(cotangent)

        return step

    with backend.use_backend(chosen):
        yield make
