"""What a call of an operator costs from Python: each on one token, against a custom operator that does nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from statistics import median

import torch
from torch import Tensor

from bench.inputs import random
from bench.row import Floor, Made, Row, Setting
from uqabench import kernels

CALLS, SMALL_CALLS = 200, 3


@torch.library.custom_op("uqabench_bench::no_op", mutates_args=())
def no_op(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor) -> Tensor:
    """Nothing but an empty result of v's shape: what torch.library itself costs."""
    return torch.empty_like(v)


@no_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor) -> Tensor:
    return torch.empty_like(v)


def _operators() -> dict[str, Callable[[], object]]:
    """A call of every operator on one token, 1 head and 8 channels: next to no arithmetic, and none of torch's."""
    row, other, vector = random(1, 8, seed=1), random(1, 8, seed=2), random(8, seed=3)
    q, decay, step = row.unsqueeze(1), -random(1, seed=4).abs(), random(1, 1, seed=4)
    offsets, first = torch.tensor([0, 1]), torch.zeros(1, dtype=torch.int64)
    square, recurrent, taps = random(8, 8, seed=5), random(24, 8, seed=6), random(8, 4, seed=7)
    decays = -square.abs()
    k = kernels
    return {
        "causal_attention": lambda: k.causal_attention(q, q, q, offsets),
        "causal_conv1d": lambda: k.causal_conv1d(row, taps, vector, offsets),
        "embedding_bag_mean": lambda: k.embedding_bag_mean(square, first, offsets),
        "gru": lambda: k.gru(row, [(recurrent, recurrent, None, None)], offsets),
        "hstu_attention": lambda: k.hstu_attention(q, q, q, offsets, max_len=4),
        "info_nce": lambda: k.info_nce(row, other, first, None, 1.0),
        "layer_norm": lambda: k.layer_norm(row, vector, vector),
        "linear_cross_entropy": lambda: k.linear_cross_entropy(row, square, first),
        "linear_rank": lambda: k.linear_rank(row, square, first),
        "linear_silu": lambda: k.linear_silu(row, square, vector),
        "norm_gate": lambda: k.norm_gate(row, other),
        "rms_norm": lambda: k.rms_norm(row, vector),
        "rope": lambda: k.rope(q, q, offsets),
        "selective_scan": lambda: k.selective_scan(row, row, decays, row, row, None, None, None, offsets),
        "ssd_scan": lambda: k.ssd_scan(q, step, decay, q, q, None, None, None, offsets),
        "swiglu": lambda: k.swiglu(row, other),
    }


def seconds_a_call(call: Callable[[], object], calls: int, repeats: int = 5) -> float:
    """Median over `repeats` of the mean time of `calls` calls, after one that warms up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - start) / calls)
    return median(times)


def _quietly(call: Callable[[], object]) -> Callable[[], object]:
    def without_gradients() -> object:
        with torch.no_grad():
            return call()

    return without_gradients


def _nothing() -> Callable[[], object]:
    q, offsets = random(1, 1, 8), torch.tensor([0, 1])
    return _quietly(lambda: no_op(q, q, q, offsets))


def _calls(setting: Setting) -> int:
    return SMALL_CALLS if setting.is_small else CALLS


@cache
def _floor(setting: Setting) -> Floor:
    seconds = seconds_a_call(_nothing(), _calls(setting))
    return Floor(formula="time of a custom operator that does nothing, measured", seconds=seconds)


def _slowest(setting: Setting) -> Made:
    operators = {name: _quietly(call) for name, call in _operators().items()}
    cost = {name: seconds_a_call(call, _calls(setting), repeats=3) for name, call in operators.items()}
    slowest = max(cost, key=cost.__getitem__)
    baseline = f"no-op custom operator (slowest of ours: {slowest})"
    return Made([operators[slowest]], {baseline: lambda: [_nothing()]}, calls=_calls(setting))


def _one(operator: str, setting: Setting) -> Made:
    ours = _quietly(_operators()[operator])
    return Made([ours], {"no-op custom operator": lambda: [_nothing()]}, calls=_calls(setting))


def rows() -> Iterator[Row]:
    what = "one call of the slowest operator to call, one token"
    yield Row("op_overhead", "op_overhead", _floor, _slowest, what=what)
    for name in _operators():
        yield Row(f"one call of {name}", "op_overhead", _floor, partial(_one, name))
