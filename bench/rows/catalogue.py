"""Rows over the whole catalogue of the published data: 994,447 items of 128 dimensions."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import work
from bench.rows.row import Floor, Measure, Row, peak_extra_bytes, random
from uqabench.kernels import AdamW, linear_cross_entropy, linear_rank

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


def _sparse_adamw(is_small: bool) -> list[Measure]:
    items, width = (SMALL_ITEMS, SMALL_WIDTH) if is_small else (ITEMS, WIDTH)
    touched = items // 100
    table = torch.nn.Parameter(random(items, width, seed=1, scale=width**-0.5))
    dense_grad = random(items, width, seed=2)
    batches = [torch.randperm(items, generator=torch.Generator().manual_seed(seed))[:touched] for seed in range(8)]
    sparse_grads = [
        torch.sparse_coo_tensor(ids[None], dense_grad[ids], dense_grad.shape, check_invariants=True) for ids in batches
    ]

    def step(optimizer: torch.optim.Optimizer, grad: Tensor) -> None:
        table.grad = grad
        optimizer.step()

    ours, fused, default = AdamW([table]), torch.optim.AdamW([table], fused=True), torch.optim.AdamW([table])
    step(ours, sparse_grads[0])
    # One set of moments serves all three: 0.5 GB each. The time does not depend on their values.
    moments = {name: ours.state[table][name] for name in ("exp_avg", "exp_avg_sq")}
    for dense in (fused, default):
        dense.state[table] = {"step": torch.zeros(()), **moments}
    turns = itertools.cycle(sparse_grads)

    floor = Floor(
        bytes=4 * 7 * touched * width,
        formula=f"bytes 4 x 7 x {touched:,} x {width}: touched rows of p, m, v read and written, their gradient read",
    )

    def measure(name: str, baseline: str, dense: torch.optim.Optimizer) -> Measure:
        return Measure(name, lambda: step(ours, next(turns)), floor, baseline, lambda: step(dense, dense_grad))

    return [
        measure("sparse_adamw", "torch.optim.AdamW, dense", default),
        measure("sparse_adamw against fused", "torch.optim.AdamW(fused=True), dense", fused),
    ]


ROWS = (
    Row("linear_cross_entropy", "full-catalogue cross entropy, T 1,024, d 128, V 994,447, fwd+bwd", _cross_entropy),
    Row("linear_rank", "ranks of 64 users' targets among 994,447 items", _rank),
    Row("sparse_adamw", "AdamW on 994,447 rows of 128, 1 % of them touched", _sparse_adamw),
)
