"""What holds for every encoder: causality, isolation, order of sequences, empty input, dropout, own gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from uqabench.encoders import ENCODER_PRESETS, HSTU, build_encoder
from uqabench.errors import InputError

NAMES = tuple(ENCODER_PRESETS)


@pytest.fixture(params=NAMES)
def encoder(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return build_encoder(request.param, "tiny", layers=2, init_std=0.2).eval()


def test_causal(encoder: nn.Module, packed: Callable) -> None:
    batch = packed([9, 12])
    before = encoder(batch.x, batch.offsets, batch.timestamps)
    x, times = batch.x.clone(), batch.timestamps.clone()
    x[14:] = torch.randn(7, 32)
    times[14:] += 1000
    after = encoder(x, batch.offsets, times)
    assert torch.equal(before[:14], after[:14])
    assert not torch.isclose(before[14:], after[14:]).all(-1).any()
    assert encoder.causal


def test_prefix_equals_whole(encoder: nn.Module, packed: Callable) -> None:
    batch = packed([20])
    whole = encoder(batch.x, batch.offsets, batch.timestamps)
    prefix = encoder(batch.x[:7], torch.tensor([0, 7]), batch.timestamps[:7])
    torch.testing.assert_close(prefix, whole[:7], rtol=1e-4, atol=1e-5)


def test_memory_reaches_back(encoder: nn.Module, packed: Callable) -> None:
    batch = packed([6])
    x = batch.x.requires_grad_()
    encoder(x, batch.offsets, batch.timestamps)[-1].square().sum().backward()
    assert (x.grad.norm(dim=1) > 0).all()


def test_isolated_and_indifferent_to_order(encoder: nn.Module, packed: Callable) -> None:
    lengths, order = [5, 0, 1, 12, 3], [3, 1, 4, 0, 2]
    batch = packed(lengths)
    together = encoder(batch.x, batch.offsets, batch.timestamps).split(lengths)
    xs, times = batch.x.split(lengths), batch.timestamps.split(lengths)
    shuffled = encoder(
        torch.cat([xs[i] for i in order]),
        torch.tensor([0, *(lengths[i] for i in order)]).cumsum(0),
        torch.cat([times[i] for i in order]),
    ).split([lengths[i] for i in order])
    for place, i in enumerate(order):
        alone = encoder(xs[i], torch.tensor([0, lengths[i]]), times[i])
        torch.testing.assert_close(alone, together[i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(shuffled[place], together[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [1], [0, 1, 0]])
def test_nearly_empty(encoder: nn.Module, packed: Callable, lengths: list[int]) -> None:
    batch = packed(lengths)
    x = batch.x.requires_grad_()
    out = encoder(x, batch.offsets, batch.timestamps)
    assert out.shape == (sum(lengths), 32)
    out.sum().backward()
    assert x.grad.shape == x.shape


def test_dropout_uses_torchs_generator(encoder: nn.Module, packed: Callable) -> None:
    batch = packed([9, 12])
    encoder.train()
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(encoder(batch.x, batch.offsets, batch.timestamps))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_every_parameter_learns(encoder: nn.Module, packed: Callable) -> None:
    batch = packed([9, 12])
    (encoder(batch.x, batch.offsets, batch.timestamps) * torch.randn(21, 32)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


@pytest.mark.parametrize("name", ["hstu", "sasrec"])
def test_longer_than_built_for(name: str, packed: Callable) -> None:
    encoder, batch = build_encoder(name, "tiny", max_len=8), packed([8, 9])
    with pytest.raises(InputError, match="9 items.*max_len = 8"):
        encoder(batch.x, batch.offsets)


@pytest.mark.parametrize("name", ["gru4rec", "mamba4rec", "mamba2", "trm++"])
def test_others_take_any_length(name: str, packed: Callable) -> None:
    encoder, batch = build_encoder(name, "tiny", max_len=8), packed([30])
    assert encoder(batch.x, batch.offsets).isfinite().all()


def test_hstu_bias_none_has_no_tables_and_ignores_time(packed: Callable) -> None:
    encoder, batch = build_encoder("hstu", "tiny", bias="none").eval(), packed([9, 12])
    assert isinstance(encoder, HSTU)
    assert not any("bias" in name for name, _ in encoder.named_parameters() if not name.endswith("out.bias"))
    without = encoder(batch.x, batch.offsets)
    assert torch.equal(encoder(batch.x, batch.offsets, batch.timestamps), without)


def test_hstu_bias_auto_follows_time_and_place(packed: Callable) -> None:
    encoder, batch = build_encoder("hstu", "tiny", init_std=0.2).eval(), packed([9, 12])
    with_time = encoder(batch.x, batch.offsets, batch.timestamps)
    assert not torch.equal(with_time, encoder(batch.x, batch.offsets))
    stretched = batch.timestamps * 1000
    assert not torch.equal(with_time, encoder(batch.x, batch.offsets, stretched))
