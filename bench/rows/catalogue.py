"""Rows over the whole catalogue of the published data: 994,447 items of 128 dimensions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import work
from bench.rows.row import Floor, Measure, Row, peak_extra_bytes, random
from uqabench.kernels import linear_cross_entropy, linear_rank

ITEMS, WIDTH = 994_447, 128
SMALL_ITEMS, SMALL_WIDTH = 1_000, 16
CHUNK = 128
"""Rows of logits that the plain-torch baseline holds at once: 0.5 GB at the published size, three times."""


def _cross_entropy(is_small: bool) -> list[Measure]:
    tokens, items, width = (32, SMALL_ITEMS, SMALL_WIDTH) if is_small else (1_024, ITEMS, WIDTH)
    hidden = random(tokens, width, seed=1).requires_grad_()
    weight = random(items, width, seed=2, scale=width**-0.5).requires_grad_()
    target = torch.randint(items, (tokens,), generator=torch.Generator().manual_seed(3))

    def ours() -> tuple[Tensor | None, ...]:
        hidden.grad = weight.grad = None
        linear_cross_entropy(hidden, weight, target).backward()
        return hidden.grad, weight.grad

    def chunked() -> tuple[Tensor | None, ...]:
        hidden.grad = weight.grad = None
        for rows, wanted in zip(hidden.split(CHUNK), target.split(CHUNK), strict=True):
            (F.cross_entropy(rows @ weight.t(), wanted, reduction="sum") / tokens).backward()
        return hidden.grad, weight.grad

    def extra() -> int | None:
        hidden.grad = weight.grad = None
        return peak_extra_bytes(ours, hidden.nbytes + weight.nbytes)

    floor = Floor.of(
        work.linear_cross_entropy(tokens, items, width).both,
        formula=(
            f"FLOPs 3 products x 2 x {tokens:,} x {width} x {items:,} (logits once, both gradients); "
            f"bytes 4 x 2 x ({items:,} + {tokens:,}) x {width}: inputs read, gradients written"
        ),
    )
    name = f"cross entropy of {CHUNK} rows of logits at a time"
    return [Measure("linear_cross_entropy", ours, floor, name, chunked, extra_bytes=extra)]


def _rank(is_small: bool) -> list[Measure]:
    users, items, width = (4, SMALL_ITEMS, SMALL_WIDTH) if is_small else (64, ITEMS, WIDTH)
    hidden, weight = random(users, width, seed=1), random(items, width, seed=2)
    target = torch.randint(items, (users,), generator=torch.Generator().manual_seed(3))

    def ours() -> Tensor:
        return linear_rank(hidden, weight, target)

    def by_sort() -> Tensor:
        order = (hidden @ weight.t()).argsort(dim=1, descending=True)
        return (order == target[:, None]).nonzero()[:, 1]

    floor = Floor.of(
        work.linear_rank(users, items, width).forward,
        formula=(
            f"FLOPs 2 x {users} x {width} x {items:,}; bytes 4 x ({items:,} + {users}) x {width}: inputs read once"
        ),
    )
    extra = lambda: peak_extra_bytes(ours, target.nbytes)  # noqa: E731
    return [Measure("linear_rank", ours, floor, "scores, then a full sort", by_sort, extra_bytes=extra)]


ROWS = (
    Row("linear_cross_entropy", "full-catalogue cross entropy, T 1,024, d 128, V 994,447, fwd+bwd", _cross_entropy),
    Row("linear_rank", "ranks of 64 users' targets among 994,447 items", _rank),
)
