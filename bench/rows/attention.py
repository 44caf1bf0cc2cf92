"""Cost of attention against length: the same tokens cut into fewer, longer sequences.

Per token, the floor grows with L + 1 for the pairs and stays put for the bytes; the ratio to it should stay the same
from the shortest to the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import work
from bench.inputs import random
from bench.row import Floor, Made, Row, Setting
from uqabench.kernels import causal_attention, hstu_attention

LENGTHS, HEADS, HEAD_WIDTH = (4_096, 2_048, 1_024, 512), 8, 64
SMALL_LENGTHS, SMALL_HEADS, SMALL_HEAD_WIDTH = (32, 16, 8, 4), 2, 8

Way = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values to a result, packed (T, H, D)."""


def _sizes(place: int, setting: Setting) -> tuple[int, int, int, int]:
    """(tokens, length of each sequence, heads, their width)"""
    lengths = SMALL_LENGTHS if setting.is_small else LENGTHS
    heads, width = (SMALL_HEADS, SMALL_HEAD_WIDTH) if setting.is_small else (HEADS, HEAD_WIDTH)
    return lengths[0], lengths[place], heads, width


def _floor(place: int, setting: Setting) -> Floor:
    tokens, length, heads, width = _sizes(place, setting)
    lengths = [length] * (tokens // length)
    return Floor(
        work.attention(lengths, heads, width).both,
        f"FLOPs 3 x 4 x {work.pairs(lengths):,} pairs (j <= i) x {heads} heads x {width}; "
        f"bytes 4 x 12 x {tokens:,} x {heads} x {width}: q, k, v read and the result written, "
        "then those and its gradient read, three gradients written",
    )


def _matrix(length: int, way: Way) -> Way:
    """`way` of heads (B, H, L, D) on packed sequences of one length."""

    def packed(*parts: Tensor) -> Tensor:
        out = way(*(part.unflatten(0, (-1, length)).transpose(1, 2) for part in parts))
        return out.transpose(1, 2).flatten(0, 1)

    return packed


def _softmax(length: int, offsets: Tensor) -> tuple[Way, Way]:
    return (
        lambda q, k, v: causal_attention(q, k, v, offsets),
        _matrix(length, lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
    )


def _silu(length: int, offsets: Tensor) -> tuple[Way, Way]:
    def scores_in_memory(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = torch.ones(length, length).tril()
        return (F.silu(q @ k.transpose(-1, -2)) / length * mask) @ v

    return lambda q, k, v: hstu_attention(q, k, v, offsets, max_len=length), _matrix(length, scores_in_memory)


def _make(place: int, ways: Callable[[int, Tensor], tuple[Way, Way]], baseline: str, setting: Setting) -> Made:
    tokens, length, heads, width = _sizes(place, setting)
    q, k, v = (random(tokens, heads, width, seed=seed).requires_grad_() for seed in range(3))
    cotangent = random(tokens, heads, width, seed=3)
    ours, other = ways(length, torch.arange(0, tokens + 1, length))

    def run(way: Way) -> tuple[Tensor | None, ...]:
        q.grad = k.grad = v.grad = None
        way(q, k, v).backward(cotangent)
        return q.grad, k.grad, v.grad

    return Made([partial(run, ours)], {f"{baseline}, {_shape(place)}": lambda: [partial(run, other)]})


def _shape(place: int) -> str:
    return f"{LENGTHS[0] // LENGTHS[place]} x {LENGTHS[place]}"


def rows() -> Iterator[Row]:
    kinds = (
        ("causal_attention", _softmax, "scaled_dot_product_attention"),
        ("hstu_attention", _silu, "masked scores in torch"),
    )
    what = "causal attention of 4,096 tokens in one sequence, 8 heads of 64, fwd+bwd"
    for operator, ways, baseline in kinds:
        for place in range(len(LENGTHS)):
            is_first = operator == "causal_attention" and place == 0
            yield Row(
                "attention_length" if is_first else f"{operator}, {_shape(place)}",
                "attention_length",
                partial(_floor, place),
                partial(_make, place, ways, baseline),
                what=what if is_first else "",
            )
