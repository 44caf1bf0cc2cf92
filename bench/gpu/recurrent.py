"""Rows of the recurrent operators at published sizes: Mamba-1's scan, Mamba-2's, the convolution before both.

Work is bytes, in bf16, as bench/work.py has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from bench import work
from bench.gpu.lengths import draw, offsets_of
from bench.gpu.problem import Inputs, Problem
from bench.row import Row, Setting
from uqabench import kernels

TOKENS = 32_768


def _lengths(kind: str, longest: int, setting: Setting) -> list[int]:
    return draw(kind, 9, 24) if setting.is_small else draw(kind, longest, TOKENS)


def _channels(full: int, setting: Setting) -> int:
    return 16 if setting.is_small else full


def _random(setting: Setting, *shape: int) -> Tensor:
    return torch.randn(shape, device=setting.device).bfloat16()


def _scan_inputs(kind: str, longest: int, setting: Setting, seed: int) -> Inputs:
    torch.manual_seed(seed)
    lengths, width, state = _lengths(kind, longest, setting), _channels(1024, setting), 4 if setting.is_small else 32
    tokens = sum(lengths)
    inputs: Inputs = {name: _random(setting, tokens, width) for name in ("u", "delta", "z")}
    inputs |= {name: _random(setting, tokens, state) for name in ("B", "C")}
    inputs["A"] = -torch.arange(1.0, state + 1, device=setting.device).repeat(width, 1)
    inputs["D"] = torch.ones(width, device=setting.device)
    inputs["delta_bias"] = torch.full((width,), -4.0, device=setting.device)
    inputs["offsets"] = offsets_of(lengths, setting.device)
    return inputs


def _scan_work(kind: str, longest: int, setting: Setting) -> work.Passes:
    tokens, state = sum(_lengths(kind, longest, setting)), 4 if setting.is_small else 32
    return work.selective_scan(tokens, _channels(1024, setting), state, element=2)


def _ssd_inputs(kind: str, longest: int, setting: Setting, seed: int) -> Inputs:
    torch.manual_seed(seed)
    lengths = _lengths(kind, longest, setting)
    heads, width, state, tokens = (2, 8, 8, sum(lengths)) if setting.is_small else (16, 64, 128, sum(lengths))
    inputs: Inputs = {name: _random(setting, tokens, heads, width) for name in ("x", "z")}
    inputs |= {name: _random(setting, tokens, 1, state) for name in ("B", "C")}
    inputs["dt"] = _random(setting, tokens, heads)
    inputs["A"] = -torch.arange(1.0, heads + 1, device=setting.device)
    inputs["D"] = torch.ones(heads, device=setting.device)
    inputs["dt_bias"] = torch.full((heads,), -4.0, device=setting.device)
    inputs["offsets"] = offsets_of(lengths, setting.device)
    return inputs


def _ssd_work(kind: str, longest: int, setting: Setting) -> work.Passes:
    channels, state = (16, 8) if setting.is_small else (1024, 128)
    return work.ssd_scan(sum(_lengths(kind, longest, setting)), channels, state, element=2)


def _conv_inputs(setting: Setting, seed: int) -> Inputs:
    torch.manual_seed(seed)
    lengths, width = _lengths("uniform", 512, setting), _channels(1024, setting)
    return {
        "x": _random(setting, sum(lengths), width),
        "weight": _random(setting, width, 4),
        "bias": _random(setting, width),
        "offsets": offsets_of(lengths, setting.device),
    }


def _conv_work(setting: Setting) -> work.Passes:
    tokens = sum(_lengths("uniform", 512, setting))
    return work.causal_conv1d(tokens, _channels(1024, setting), 4, element=2)


def _problems() -> Iterator[Problem]:
    for longest in (512, 2_048, 8_192):
        for kind in ("zipf", "uniform"):
            tokens = partial(lambda kind, longest, setting: sum(_lengths(kind, longest, setting)), kind, longest)
            yield Problem(
                operator="selective_scan",
                size=f"1024 channels, state 32, {kind} to {longest}",
                group="recurrent",
                unit="memory",
                inputs=partial(_scan_inputs, kind, longest),
                call=lambda i: kernels.selective_scan(**i, delta_softplus=True),
                leaves=("u", "delta", "A", "B", "C", "D", "z", "delta_bias"),
                work=partial(_scan_work, kind, longest),
                tokens=tokens,
                has_eager=longest == 512,
            )
            yield Problem(
                operator="ssd_scan",
                size=f"16 heads of 64, state 128, {kind} to {longest}",
                group="recurrent",
                unit="memory",
                inputs=partial(_ssd_inputs, kind, longest),
                call=lambda i: kernels.ssd_scan(**i),
                leaves=("x", "dt", "A", "B", "C", "D", "z", "dt_bias"),
                work=partial(_ssd_work, kind, longest),
                tokens=tokens,
                has_eager=longest == 512,
            )
    yield Problem(
        operator="causal_conv1d",
        size="1024 channels, 4 taps",
        group="recurrent",
        unit="memory",
        inputs=_conv_inputs,
        call=lambda i: kernels.causal_conv1d(i["x"], i["weight"], i["bias"], i["offsets"], activation="silu"),
        leaves=("x", "weight", "bias"),
        work=_conv_work,
        tokens=lambda setting: sum(_lengths("uniform", 512, setting)),
    )


def rows() -> Iterator[Row]:
    for problem in _problems():
        yield from problem.rows()
