"""One ragged example of every operator, for tests that hold for all of them.

`case(name, lengths, dtype, seed)` builds it. An operator that lacks an example fails
`test_every_operator.py`: add it here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from uqabench import kernels
from uqabench.kernels.key_values import KeyValues

RAGGED = (40, 0, 33, 7, 7, 1)
NAN = float("nan")
ROWS = 23  # of the table that embedding_bag_mean reads; the last is NaN and never used


def offsets_of(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)


@dataclass(frozen=True)
class Case:
    """`run()` calls the operator; floating arrays are its differentiable inputs.

    `tokens` names the arrays with one row a token, each with a value that poisons a sequence; `sequences` those with
    one row a sequence. `outputs` says, for each result, whether its rows are "tokens" or "sequences" or neither.
    """

    operator: Callable[..., Any]
    arrays: dict[str, Tensor]
    outputs: tuple[str, ...]
    lengths: tuple[int, ...] | None = None  # None: the operator takes no offsets
    settings: Mapping[str, Any] = field(default_factory=dict)
    tokens: Mapping[str, float] = field(default_factory=dict)
    sequences: tuple[str, ...] = ()

    def run(self, offsets: Any = None, **arrays: Tensor) -> tuple[Tensor, ...]:
        """The operator's results on the case's arrays and offsets, or on those given instead."""
        arguments = {**self.arrays, **arrays, **self.settings}
        if self.lengths is not None:
            arguments["offsets"] = offsets_of(self.lengths) if offsets is None else offsets
        returned = self.operator(**arguments)
        return returned if isinstance(returned, tuple) else (returned,)


class _Random:
    """Tensors of one dtype from one seed."""

    def __init__(self, dtype: torch.dtype, seed: int) -> None:
        self.dtype, self.generator = dtype, torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(self.dtype)

    def positive(self, *shape: int) -> Tensor:
        return (torch.rand(shape, generator=self.generator, dtype=torch.float64) + 0.1).to(self.dtype)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.generator)


def _joint(x: _Random, tokens: int, *widths: int) -> tuple[Tensor, ...]:
    """Slices of one projection, as the encoders pass them: rows are strided."""
    return x.normal(tokens, sum(widths)).split(list(widths), dim=1)


def _attention(x: _Random, tokens: int) -> dict[str, Tensor]:
    q, k, v = _joint(x, tokens, 10, 10, 38)
    return {"q": q.unflatten(1, (2, 5)), "k": k.unflatten(1, (2, 5)), "v": v.unflatten(1, (2, 19))}


def _causal_attention(x: _Random, lengths: tuple[int, ...]) -> Case:
    arrays = _attention(x, sum(lengths))
    return Case(kernels.causal_attention, arrays, ("tokens",), lengths, {"scale": 0.4}, dict.fromkeys("qkv", NAN))


OLD_TOKENS = 3  # of each history that a step continues


def _call_step(operator: Callable[..., Any]) -> Callable[..., Tensor]:
    def call(offsets: Any, cached_k: Tensor, cached_v: Tensor, **arrays: Any) -> Tensor:
        old = torch.arange(0, OLD_TOKENS * len(cached_k) + 1, OLD_TOKENS, device=cached_k.device)
        return operator(
            offsets=offsets, cache=KeyValues(cached_k.flatten(0, 1), cached_v.flatten(0, 1), old), **arrays
        )[0]

    return call


def _step(x: _Random, lengths: tuple[int, ...], operator: Callable[..., Any], settings: Mapping[str, Any]) -> Case:
    cached = {"cached_k": (2, 5), "cached_v": (2, 19)}
    arrays = _attention(x, sum(lengths))
    arrays |= {name: x.normal(len(lengths), OLD_TOKENS, *shape) for name, shape in cached.items()}
    poison = dict.fromkeys("qkv", NAN)
    return Case(_call_step(operator), arrays, ("tokens",), lengths, settings, poison, tuple(cached))


def _causal_attention_step(x: _Random, lengths: tuple[int, ...]) -> Case:
    return _step(x, lengths, kernels.causal_attention_step, {"scale": 0.4})


def _hstu_attention_step(x: _Random, lengths: tuple[int, ...]) -> Case:
    settings = {"max_len": max(lengths, default=1) + OLD_TOKENS, "scale": 0.7, "max_attn_len": 20}
    return _step(x, lengths, kernels.hstu_attention_step, settings)


def _causal_conv1d(x: _Random, lengths: tuple[int, ...]) -> Case:
    arrays = {
        "x": _joint(x, sum(lengths), 19, 3)[0],
        "weight": x.normal(19, 4),
        "bias": x.normal(19),
        "initial_state": x.normal(len(lengths), 19, 3),
    }
    settings = {"activation": "silu", "return_state": True}
    outputs = ("tokens", "sequences")
    return Case(kernels.causal_conv1d, arrays, outputs, lengths, settings, {"x": NAN}, ("initial_state",))


def _embedding_bag_mean(x: _Random, lengths: tuple[int, ...]) -> Case:
    arrays = {"table": x.normal(ROWS, 19), "ids": x.integers(0, ROWS - 1, sum(lengths))}
    arrays["table"][-1] = NAN
    return Case(kernels.embedding_bag_mean, arrays, ("sequences",), lengths, {}, {"ids": ROWS - 1})


GRU_PARTS = ("w_ih", "w_hh", "b_ih", "b_hh")


def _call_gru(offsets: Any, **arrays: Tensor) -> tuple[Tensor, Tensor]:
    weights = [tuple(arrays[f"{part}_{i}"] for part in GRU_PARTS) for i in range(2)]
    h0 = arrays["h0"].transpose(0, 1).contiguous()  # sequences first, as the other operators have their states
    y, state = kernels.gru(arrays["x"], weights, offsets, h0=h0, return_state=True)
    return y, state.transpose(0, 1)


def _gru(x: _Random, lengths: tuple[int, ...]) -> Case:
    arrays = {"x": x.normal(sum(lengths), 5), "h0": x.normal(len(lengths), 2, 11)}
    for i, width in enumerate((5, 11)):
        shapes = ((33, width), (33, 11), (33,), (33,))
        arrays |= {f"{part}_{i}": x.normal(*shape) / 3 for part, shape in zip(GRU_PARTS, shapes, strict=True)}
    return Case(_call_gru, arrays, ("tokens", "sequences"), lengths, {}, {"x": NAN}, ("h0",))


def _hstu_attention(x: _Random, lengths: tuple[int, ...]) -> Case:
    tokens, longest = sum(lengths), max(lengths, default=1)
    arrays = _attention(x, tokens) | {
        "position_bias": x.normal(2 * longest + 1),
        "time_bias": x.normal(24),
        "timestamps": x.integers(0, 10**6, tokens),
    }
    settings = {"max_len": longest + 1, "scale": 0.7}
    poison = dict.fromkeys("qkv", NAN) | {"timestamps": 2**62}
    return Case(kernels.hstu_attention, arrays, ("tokens",), lengths, settings, poison)


def _info_nce(x: _Random, lengths: tuple[int, ...]) -> Case:
    rows = sum(lengths)
    arrays = {"hidden": x.normal(rows, 19), "positives": x.normal(rows, 19), "ids": x.integers(0, max(rows, 1), rows)}
    arrays["log_q"] = x.positive(rows).log()
    return Case(kernels.info_nce, arrays, ("scalar",), None, {"temperature": 0.7})


def _layer_norm(x: _Random, lengths: tuple[int, ...]) -> Case:
    arrays = {"x": _joint(x, sum(lengths), 19, 3)[0], "weight": x.normal(19), "bias": x.normal(19)}
    return Case(kernels.layer_norm, arrays, ("rows",), None, {"eps": 1e-3})


def _linear_cross_entropy(x: _Random, lengths: tuple[int, ...]) -> Case:
    target = x.integers(0, 1501, sum(lengths))
    target[::5] = -100
    arrays = {"hidden": x.normal(sum(lengths), 19), "weight": x.normal(1501, 19), "target": target}
    return Case(kernels.linear_cross_entropy, arrays, ("scalar",))


def _linear_rank(x: _Random, lengths: tuple[int, ...]) -> Case:
    """Small integers: every backend's sums are exact, and many items tie."""
    arrays = {"hidden": x.normal(sum(lengths), 7).round(), "weight": x.normal(1501, 7).round()}
    arrays["target"] = x.integers(0, 1501, sum(lengths))
    return Case(kernels.linear_rank, arrays, ("rows",))


def _linear_silu(x: _Random, lengths: tuple[int, ...]) -> Case:
    arrays = {"x": _joint(x, sum(lengths), 19, 3)[0], "weight": x.normal(37, 19) / 4, "bias": x.normal(37)}
    return Case(kernels.linear_silu, arrays, ("rows",))


def _norm_gate(x: _Random, lengths: tuple[int, ...]) -> Case:
    gate, values, _ = _joint(x, sum(lengths), 19, 19, 3)
    return Case(kernels.norm_gate, {"x": values, "gate": gate}, ("rows",), None, {"eps": 1e-3})


def _rms_norm(x: _Random, lengths: tuple[int, ...]) -> Case:
    values, residual, _ = _joint(x, sum(lengths), 19, 19, 3)
    arrays = {"x": values, "residual": residual, "weight": x.normal(19)}
    return Case(kernels.rms_norm, arrays, ("rows", "rows"), None, {"eps": 1e-3})


def _rope(x: _Random, lengths: tuple[int, ...]) -> Case:
    q, k, _ = _joint(x, sum(lengths), 36, 18, 3)
    arrays = {"q": q.unflatten(1, (2, 18)), "k": k.unflatten(1, (1, 18))}
    return Case(kernels.rope, arrays, ("tokens", "tokens"), lengths, {"base": 100.0}, dict.fromkeys("qk", NAN))


def _selective_scan(x: _Random, lengths: tuple[int, ...]) -> Case:
    u, z, delta, b, c = _joint(x, sum(lengths), 19, 19, 19, 5, 5)
    arrays = {"u": u, "delta": delta, "A": -x.positive(19, 5), "B": b, "C": c, "D": x.normal(19), "z": z}
    arrays |= {"delta_bias": x.normal(19), "initial_state": x.normal(len(lengths), 19, 5)}
    settings = {"delta_softplus": True, "return_state": True}
    poison = dict.fromkeys(("u", "delta", "B", "C", "z"), NAN)
    outputs = ("tokens", "sequences")
    return Case(kernels.selective_scan, arrays, outputs, lengths, settings, poison, ("initial_state",))


def _ssd_scan(x: _Random, lengths: tuple[int, ...]) -> Case:
    heads, z, b, c, dt = _joint(x, sum(lengths), 12, 12, 10, 10, 4)
    arrays = {
        "x": heads.unflatten(1, (4, 3)),
        "dt": dt,
        "A": -x.positive(4),
        "B": b.unflatten(1, (2, 5)),
        "C": c.unflatten(1, (2, 5)),
        "D": x.normal(4),
        "z": z.unflatten(1, (4, 3)),
        "dt_bias": x.normal(4),
        "initial_state": x.normal(len(lengths), 4, 3, 5),
    }
    poison = dict.fromkeys(("x", "dt", "B", "C", "z"), NAN)
    outputs = ("tokens", "sequences")
    return Case(kernels.ssd_scan, arrays, outputs, lengths, {"return_state": True}, poison, ("initial_state",))


def _swiglu(x: _Random, lengths: tuple[int, ...]) -> Case:
    gate, up, _ = _joint(x, sum(lengths), 19, 19, 3)
    return Case(kernels.swiglu, {"gate": gate, "up": up}, ("rows",))


_CASES = {
    "causal_attention": _causal_attention,
    "causal_attention_step": _causal_attention_step,
    "causal_conv1d": _causal_conv1d,
    "embedding_bag_mean": _embedding_bag_mean,
    "gru": _gru,
    "hstu_attention": _hstu_attention,
    "hstu_attention_step": _hstu_attention_step,
    "info_nce": _info_nce,
    "layer_norm": _layer_norm,
    "linear_cross_entropy": _linear_cross_entropy,
    "linear_rank": _linear_rank,
    "linear_silu": _linear_silu,
    "norm_gate": _norm_gate,
    "rms_norm": _rms_norm,
    "rope": _rope,
    "selective_scan": _selective_scan,
    "ssd_scan": _ssd_scan,
    "swiglu": _swiglu,
}
NAMES = tuple(_CASES)


def case(name: str, lengths: Sequence[int] = RAGGED, dtype: torch.dtype = torch.float32, seed: int = 0) -> Case:
    return _CASES[name](_Random(dtype, seed), tuple(lengths))
