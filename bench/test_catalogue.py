"""Operators over a catalogue of 100,000 items of 128 dimensions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.available import backends
from bench.inputs import random
from uqabench.kernels import linear_cross_entropy, linear_rank

ITEMS, WIDTH = 100_000, 128


@pytest.fixture(scope="module")
def weight() -> Tensor:
    return random(ITEMS, WIDTH, seed=1, scale=WIDTH**-0.5)


def targets(tokens: int) -> Tensor:
    return torch.randint(ITEMS, (tokens,), generator=torch.Generator().manual_seed(2))


@backends("linear_cross_entropy")
def test_cross_entropy_train(benchmark: Callable, train: Callable, weight: Tensor):
    leaves = [random(256, WIDTH, seed=3).requires_grad_(), weight.clone().requires_grad_()]
    benchmark(train(lambda: linear_cross_entropy(*leaves, targets(256)), leaves))


@backends("linear_rank")
def test_rank(benchmark: Callable, train: Callable, weight: Tensor):
    hidden, target = random(64, WIDTH, seed=3), targets(64)
    benchmark(lambda: linear_rank(hidden, weight, target))
