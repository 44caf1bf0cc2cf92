"""The padded baselines share the encoders' parameters, whatever the padding; tests/encoders compares their values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.baselines import BASELINE_NAMES, build_baseline
from bench.baselines.padding import pad, unpad, zero_padding
from uqabench.encoders import build_encoder

pytest.importorskip("transformers")  # the Mamba baselines are its blocks

OFFSETS = torch.tensor([0, 5, 5, 6, 15])
LENGTHS = OFFSETS.diff()


@pytest.fixture
def packed() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(15, 32)


def test_padding_there_and_back(packed: Tensor):
    padded = pad(packed, OFFSETS)
    assert padded.shape == (4, 9, 32)
    assert torch.equal(unpad(padded, LENGTHS), packed)
    assert torch.equal(pad(packed, OFFSETS, 12)[:, :9], padded)
    assert not pad(packed, OFFSETS, 12)[:, 9:].any()
    assert torch.equal(zero_padding(torch.ones(4, 9, 1), LENGTHS).sum((1, 2)).long(), LENGTHS)


@pytest.mark.parametrize("name", BASELINE_NAMES)
def test_more_padding_changes_nothing(name: str, packed: Tensor):
    baseline = build_baseline(name, build_encoder(name, "tiny")).eval()
    with torch.no_grad():
        short, long = (baseline(pad(packed, OFFSETS, length), LENGTHS) for length in (None, 20))
    torch.testing.assert_close(long[:, :9], short, rtol=1e-4, atol=1e-5)
    assert not long[:, 9:].any()


@pytest.mark.parametrize("name", BASELINE_NAMES)
def test_trains_the_encoders_own_parameters(name: str, packed: Tensor):
    encoder = build_encoder(name, "tiny", layers=2, dropout=0.0).train()
    cotangent, gradients = torch.randn_like(packed), []
    for run in (
        lambda: encoder(packed, OFFSETS),
        lambda: unpad(build_baseline(name, encoder).train()(pad(packed, OFFSETS), LENGTHS), LENGTHS),
    ):
        encoder.zero_grad()
        run().backward(cotangent)
        gradients.append({key: p.grad.clone() for key, p in encoder.named_parameters() if p.grad is not None})
    ours, theirs = gradients
    assert set(ours) == set(theirs)
    for key, got in ours.items():
        torch.testing.assert_close(got, theirs[key], rtol=1e-3, atol=1e-4 * float(got.abs().max()), msg=key)


@pytest.mark.parametrize("name", BASELINE_NAMES)
def test_dropout_runs(name: str, packed: Tensor):
    baseline = build_baseline(name, build_encoder(name, "tiny", dropout=0.5)).train()
    first, second = (baseline(pad(packed, OFFSETS), LENGTHS) for _ in range(2))
    assert first.isfinite().all() and not torch.equal(first, second)
