"""Attention operators at the published shapes: 2,193 tokens in 8 sequences of 155 to 409."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from bench.available import backends
from bench.inputs import random
from uqabench.kernels import causal_attention, hstu_attention


def heads(tokens: int, count: int, width: int) -> list[Tensor]:
    """q, k and v (tokens, count, width)."""
    return [random(tokens, count, width, seed=seed, scale=0.3).requires_grad_() for seed in range(3)]


@backends("hstu_attention")
def test_hstu_forward(benchmark: Callable, train: Callable, offsets: Tensor):
    parts = [part.detach() for part in heads(int(offsets[-1]), 8, 256)]
    benchmark(lambda: hstu_attention(*parts, offsets, max_len=512))


@backends("hstu_attention")
def test_hstu_train(benchmark: Callable, train: Callable, offsets: Tensor):
    parts = heads(int(offsets[-1]), 8, 256)
    benchmark(train(lambda: hstu_attention(*parts, offsets, max_len=512), parts))


@backends("hstu_attention")
def test_hstu_with_biases_train(benchmark: Callable, train: Callable, offsets: Tensor):
    tokens = int(offsets[-1])
    parts = heads(tokens, 8, 256)
    tables = [random(1023, seed=4).requires_grad_(), random(129, seed=5).requires_grad_()]
    times = 1_500_000_000 + (random(tokens, seed=6).abs() * 50_000).long().cumsum(0)
    step = train(
        lambda: hstu_attention(
            *parts, offsets, max_len=512, position_bias=tables[0], time_bias=tables[1], timestamps=times
        ),
        parts + tables,
    )
    benchmark(step)


@backends("causal_attention")
def test_causal_forward(benchmark: Callable, train: Callable, offsets: Tensor):
    parts = [part.detach() for part in heads(int(offsets[-1]), 8, 64)]
    benchmark(lambda: causal_attention(*parts, offsets))


@backends("causal_attention")
def test_causal_train(benchmark: Callable, train: Callable, offsets: Tensor):
    parts = heads(int(offsets[-1]), 8, 64)
    benchmark(train(lambda: causal_attention(*parts, offsets), parts))
