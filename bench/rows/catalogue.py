"""Rows over the whole catalogue of the published data: 994,447 items of 128 dimensions."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import work
from bench.inputs import random
from bench.peak_memory import peak_extra_bytes
from bench.row import Floor, Made, Row, Setting
from uqabench.kernels import linear_cross_entropy, linear_rank

ITEMS, WIDTH = 994_447, 128
SMALL_ITEMS, SMALL_WIDTH = 1_000, 16
CHUNK = 128
"""Rows of logits that the plain-torch baseline holds at once: 0.5 GB at the published size, three times."""


def _cross_entropy_sizes(setting: Setting) -> tuple[int, int, int]:
    return (32, SMALL_ITEMS, SMALL_WIDTH) if setting.is_small else (1_024, ITEMS, WIDTH)


def _cross_entropy_floor(setting: Setting) -> Floor:
    tokens, items, width = _cross_entropy_sizes(setting)
    return Floor(
        work.linear_cross_entropy(tokens, items, width).both,
        f"FLOPs 3 products x 2 x {tokens:,} x {width} x {items:,} (logits once, both gradients); "
        f"bytes 4 x 2 x ({items:,} + {tokens:,}) x {width}: inputs read, gradients written",
    )


def _cross_entropy(setting: Setting) -> Made:
    tokens, items, width = _cross_entropy_sizes(setting)
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

    name = f"cross entropy of {CHUNK} rows of logits at a time"
    return Made([ours], {name: lambda: [chunked]}, extra_bytes=extra)


def _rank_sizes(setting: Setting) -> tuple[int, int, int]:
    return (4, SMALL_ITEMS, SMALL_WIDTH) if setting.is_small else (64, ITEMS, WIDTH)


def _rank_floor(setting: Setting) -> Floor:
    users, items, width = _rank_sizes(setting)
    return Floor(
        work.linear_rank(users, items, width).forward,
        f"FLOPs 2 x {users} x {width} x {items:,}; bytes 4 x ({items:,} + {users}) x {width}: inputs read once",
    )


def _rank(setting: Setting) -> Made:
    users, items, width = _rank_sizes(setting)
    hidden, weight = random(users, width, seed=1), random(items, width, seed=2)
    target = torch.randint(items, (users,), generator=torch.Generator().manual_seed(3))

    def ours() -> Tensor:
        return linear_rank(hidden, weight, target)

    def by_sort() -> Tensor:
        order = (hidden @ weight.t()).argsort(dim=1, descending=True)
        return (order == target[:, None]).nonzero()[:, 1]

    def extra() -> int | None:
        return peak_extra_bytes(ours, target.nbytes)

    return Made([ours], {"scores, then a full sort": lambda: [by_sort]}, extra_bytes=extra)


def rows() -> Iterator[Row]:
    what = "full-catalogue cross entropy, T 1,024, d 128, V 994,447, fwd+bwd"
    yield Row("linear_cross_entropy", "linear_cross_entropy", _cross_entropy_floor, _cross_entropy, what=what)
    yield Row("linear_rank", "linear_rank", _rank_floor, _rank, what="ranks of 64 users' targets among 994,447 items")
