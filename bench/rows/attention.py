"""Cost of attention against length: the same tokens cut into fewer, longer sequences.

Per token, the floor grows with L + 1 for the pairs and stays put for the bytes; the ratio to it should stay the same
from the shortest to the longest.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import work
from bench.rows.row import Floor, Measure, Row, random
from uqabench.kernels import causal_attention, hstu_attention

LENGTHS, HEADS, HEAD_WIDTH = (4_096, 2_048, 1_024, 512), 8, 64
SMALL_LENGTHS, SMALL_HEADS, SMALL_HEAD_WIDTH = (32, 8), 2, 8


def _floor(tokens: int, length: int, heads: int, width: int) -> Floor:
    lengths = [length] * (tokens // length)
    return Floor.of(
        work.attention(lengths, heads, width).both,
        formula=(
            f"FLOPs 3 x 4 x {work.pairs(lengths):,} pairs (j <= i) x {heads} heads x {width}; "
            f"bytes 4 x 12 x {tokens:,} x {heads} x {width}: q, k, v read and the result written, "
            "then those and its gradient read, three gradients written"
        ),
    )


def _build(is_small: bool) -> list[Measure]:
    lengths, heads, width = (SMALL_LENGTHS, SMALL_HEADS, SMALL_HEAD_WIDTH) if is_small else (LENGTHS, HEADS, HEAD_WIDTH)
    tokens = lengths[0]
    q, k, v = (random(tokens, heads, width, seed=seed).requires_grad_() for seed in range(3))
    cotangent = random(tokens, heads, width, seed=3)

    def run(out: Tensor) -> tuple[Tensor | None, ...]:
        q.grad = k.grad = v.grad = None
        out.backward(cotangent)
        return q.grad, k.grad, v.grad

    def batched(length: int) -> tuple[Tensor, ...]:
        return tuple(part.view(-1, length, heads, width).transpose(1, 2) for part in (q, k, v))

    def packed(out: Tensor) -> Tensor:
        return out.transpose(1, 2).reshape(tokens, heads, width)

    def softmax(length: int) -> Measure:
        offsets = torch.arange(0, tokens + 1, length)
        return Measure(
            "attention_length" if length == tokens else f"causal_attention, {tokens // length} x {length}",
            lambda: run(causal_attention(q, k, v, offsets)),
            _floor(tokens, length, heads, width),
            f"scaled_dot_product_attention, {tokens // length} x {length}",
            lambda: run(packed(F.scaled_dot_product_attention(*batched(length), is_causal=True))),
        )

    def silu(length: int) -> Measure:
        offsets = torch.arange(0, tokens + 1, length)

        def scores_in_memory() -> tuple[Tensor | None, ...]:
            queries, keys, values = batched(length)
            mask = torch.ones(length, length).tril()
            return run(packed((F.silu(queries @ keys.transpose(-1, -2)) / length * mask) @ values))

        return Measure(
            f"hstu_attention, {tokens // length} x {length}",
            lambda: run(hstu_attention(q, k, v, offsets, max_len=length)),
            _floor(tokens, length, heads, width),
            f"masked scores in torch, {tokens // length} x {length}",
            scores_in_memory,
        )

    return [*map(softmax, lengths), *map(silu, lengths)]


ROWS = (Row("attention_length", "causal attention of 4,096 tokens in one sequence, 8 heads of 64, fwd+bwd", _build),)
