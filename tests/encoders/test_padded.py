"""Each encoder against its padded formulation, which is also what the benchmarks time it against."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bench.baselines import BASELINE_NAMES, build_baseline
from bench.baselines.padding import pad, unpad
from uqabench.encoders import build_encoder

pytest.importorskip("transformers")  # the Mamba baselines are its blocks

LENGTHS = [5, 0, 1, 17, 2, 33]


def lively(name: str, **overrides: object) -> nn.Module:
    """A tiny two-layer encoder whose parameters are all far from 0 and 1, so that each shows in the output."""
    torch.manual_seed(1)
    encoder = build_encoder(name, "tiny", layers=2, init_std=0.15, **overrides).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return encoder


def relative(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want).norm() / want.norm().clamp(min=1e-12))


def run_both(name: str, packed: Callable, *, timed: bool, dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """Relative error of the output and of every gradient against the padded formulation in float64.

    (The Mamba baselines compute parts of their scans in float32, whatever they are given.)
    """
    encoder = lively(name)
    batch = packed(LENGTHS)
    exact = copy.deepcopy(encoder).double()
    encoder.to(dtype)
    x = batch.x.to(dtype, copy=True).requires_grad_()
    times = batch.timestamps if timed else None
    out = encoder(x, batch.offsets, times)
    assert out.dtype == dtype
    x64 = batch.x.double().requires_grad_()
    lengths = batch.offsets.diff()
    padded = build_baseline(name, exact).eval()(
        pad(x64, batch.offsets), lengths, pad(times, batch.offsets) if timed else None
    )
    want = unpad(padded, lengths)
    cotangent = torch.randn(want.shape, generator=torch.Generator().manual_seed(5))
    out.backward(cotangent.to(dtype))
    want.backward(cotangent.double())
    errors = {"output": relative(out.detach(), want.detach()), "x": relative(x.grad, x64.grad)}
    for (key, got), reference in zip(encoder.named_parameters(), exact.parameters(), strict=True):
        if reference.grad is None:
            assert got.grad is None or not got.grad.any(), key
        else:
            errors[key] = relative(got.grad, reference.grad)
    return errors


@pytest.mark.parametrize("name", BASELINE_NAMES)
def test_equals_the_padded_formulation(name: str, packed: Callable) -> None:
    for timed in (False, True):
        worst = max(run_both(name, packed, timed=timed).items(), key=lambda item: item[1])
        assert worst[1] <= 1e-4, worst


@pytest.mark.parametrize("name", BASELINE_NAMES)
def test_bfloat16_stays_close(name: str, packed: Callable) -> None:
    """8 bits of mantissa round by 2^-9 = 2e-3 an operation: under 1 % in the output, a few % in gradients."""
    errors = run_both(name, packed, timed=True, dtype=torch.bfloat16)
    assert errors["output"] <= 2e-2
    worst = max(errors.items(), key=lambda item: item[1])
    assert worst[1] <= 1e-1, worst


@pytest.mark.parametrize("name", BASELINE_NAMES)
def test_autocast_stays_close(name: str, packed: Callable) -> None:
    encoder, batch = lively(name), packed(LENGTHS)
    want = encoder(batch.x, batch.offsets, batch.timestamps)
    with torch.autocast("cpu", torch.bfloat16):
        got = encoder(batch.x, batch.offsets, batch.timestamps)
    got.sum().backward()
    assert got.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    assert relative(got.detach(), want.detach().double()) <= 2e-2
