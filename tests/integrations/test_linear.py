"""Soft tokens from pooled states: one Linear a token, started at one regression a token."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from uqabench.errors import InputError
from uqabench.integrations import (
    LinearTokens,
    TrainingHistories,
    WindowTokens,
    find_integration,
    fit_ridge,
    integration_names,
    window_means,
)


@dataclass(frozen=True)
class Settings:
    n_queries: int = 3


BUILT_IN = [name for name in integration_names() if isinstance(find_integration(name), WindowTokens)]


def packed(lengths, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([0, *torch.tensor(lengths, dtype=torch.int64).cumsum(0).tolist()])
    return torch.randn(int(offsets[-1]), width, generator=generator), offsets


def histories_of(pooling, lengths, width, llm_width):
    """Histories of ten users and more, whose own vectors are linear in the mean of the window plus a little noise."""
    states, offsets = packed(lengths, width)
    pooled = pooling(states, offsets)
    generator = torch.Generator().manual_seed(1)
    read_out = torch.randn(width, llm_width, generator=generator)
    noise = torch.randn(len(lengths), llm_width, generator=generator)

    def vectors(window):
        (mean,) = window_means(window)(states, offsets).unbind(1)
        return mean @ read_out + 0.01 * noise

    users = torch.arange(len(lengths)) // 2
    return TrainingHistories(users, lambda rows: (pooled[rows],), vectors), pooled


@pytest.mark.parametrize("n_tokens", [1, 3])
def test_each_token_is_its_own_linear_map_of_its_own_vector(n_tokens):
    adapter = LinearTokens(n_tokens, 8, 12, token_rms=0.5)
    pooled = torch.randn(5, n_tokens, 8)
    tokens = adapter(pooled)
    assert tokens.shape == (5, n_tokens, 12)
    for i in range(n_tokens):
        rows = slice(12 * i, 12 * (i + 1))
        expected = pooled[:, i] @ adapter.linear.weight[rows].T + adapter.linear.bias[rows]
        torch.testing.assert_close(tokens[:, i], expected)
    tokens[:, -1].sum().backward()
    moved = adapter.linear.weight.grad.view(n_tokens, 12, 8).abs().sum((1, 2)) > 0
    assert moved.tolist() == [False] * (n_tokens - 1) + [True]


def test_pooling_before_the_linear_map_equals_the_papers_order():
    adapter = LinearTokens(1, 8, 12, token_rms=1.0)
    states, offsets = packed([3, 9, 1], 8)
    mapped_first = window_means(None)(adapter.linear(states), offsets)
    torch.testing.assert_close(adapter(window_means(None)(states, offsets)), mapped_first)


def test_tokens_start_at_the_size_of_the_language_models():
    torch.manual_seed(0)
    adapter = LinearTokens(2, 64, 512, token_rms=0.031)
    tokens = adapter(torch.randn(50, 2, 64)).detach()
    assert float(tokens.square().mean().sqrt()) == pytest.approx(0.031, rel=0.1)
    empty = adapter(torch.zeros(1, 2, 64)).detach()
    assert float(empty.square().mean().sqrt()) > 0.5 * 0.031  # a zero token has no finite gradient in some models


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_token_starts_at_the_regression_onto_its_windows_items(name):
    integration = find_integration(name)
    histories, pooled = histories_of(integration.pooling, [1 + 7 * i % 23 for i in range(40)], 4, 6)
    adapter = integration.build(4, 6, 1.0, Settings())
    metrics = integration.initialise(adapter, histories)
    tokens = adapter(pooled).detach()
    assert tokens.shape[1] == integration.n_tokens(Settings()) == len(integration.windows)
    for i, window in enumerate(integration.windows):
        fit = fit_ridge(pooled[:, i], histories.vectors(window), groups=histories.users)
        expected = pooled[:, i].double() @ fit.weight.T + fit.bias
        torch.testing.assert_close(tokens[:, i], expected.float(), rtol=1e-4, atol=1e-5)
        assert fit.held_out_r_squared > 0.9
    values = [value for key, value in metrics.items() if key.startswith("ridge_held_out_r_squared")]
    assert len(values) == len(integration.windows) and min(values) > 0.9


def test_metrics_name_the_window_where_there_are_several():
    class MeanAndTen(WindowTokens):
        windows = (None, 10)

    for integration, suffixes in ((find_integration("mean-pooling"), [""]), (MeanAndTen(), [".mean", ".last-10"])):
        histories, _ = histories_of(integration.pooling, [5] * 24, 3, 2)
        metrics = integration.initialise(integration.build(3, 2, 1.0, Settings()), histories)
        stems = ("ridge_l2", "ridge_r_squared", "ridge_held_out_r_squared")
        assert list(metrics) == [stem + suffix for suffix in suffixes for stem in stems]


def test_a_regression_of_other_widths_is_refused():
    fit = fit_ridge(torch.randn(20, 6), torch.randn(20, 9))
    with pytest.raises(InputError, match="maps 6 to 8 numbers, but the regression 6 to 9"):
        LinearTokens(1, 6, 8, token_rms=1.0).start_at(0, fit)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": 0}, "width must be a positive whole number, not 0"),
        ({"n_tokens": 1.5}, "n_tokens must be a positive whole number, not 1.5"),
        ({"token_rms": float("inf")}, "token_rms must be a positive number, not inf"),
    ],
)
def test_bad_sizes_are_named(sizes, message):
    with pytest.raises(InputError, match=message):
        LinearTokens(**{"n_tokens": 1, "width": 4, "llm_width": 4, "token_rms": 1.0, **sizes})
