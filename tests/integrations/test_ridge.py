import numpy as np
import pytest
import torch

from uqabench.errors import InputError
from uqabench.integrations.ridge import L2_GRID, fit_ridge, ridge_regression


def linear_data(n, d, m, *, noise, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator) * torch.logspace(-2, 1, d) + 5
    weight = torch.randn(m, d, generator=generator)
    y = x @ weight.T + 3 + noise * torch.randn(n, m, generator=generator)
    return x, y, weight


def test_recovers_a_linear_map_exactly():
    x, _, weight = linear_data(200, 6, 4, noise=0)
    x = x.double()
    y = x @ weight.double().T + 3
    found, bias = ridge_regression(x, y, l2=0.0)
    assert found.shape == (4, 6) and bias.shape == (4,)
    torch.testing.assert_close(found, weight.double(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(bias, torch.full((4,), 3.0).double(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("l2", [0.1, 10.0, 1e4])
def test_solves_the_penalised_normal_equations(l2):
    """Against least squares on augmented rows: sqrt(l2) · identity below the centred x, zeros below y."""
    x, y, _ = linear_data(50, 5, 3, noise=1.0)
    a, b = x.double().numpy(), y.double().numpy()
    rows = np.vstack([a - a.mean(0), np.sqrt(l2) * np.eye(5)])
    expected = np.linalg.lstsq(rows, np.vstack([b - b.mean(0), np.zeros((5, 3))]), rcond=None)[0].T
    weight, bias = ridge_regression(x, y, l2=l2)
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(bias.numpy(), b.mean(0) - expected @ a.mean(0), rtol=1e-7)


def test_directions_without_variance_get_no_weight():
    x, y, _ = linear_data(40, 4, 2, noise=0.1)
    doubled = torch.cat([x, x[:, :1], torch.full((40, 1), 7.0)], dim=1)
    weight, bias = ridge_regression(doubled, y, l2=0.0)
    assert weight.isfinite().all() and float(weight[:, 5].abs().max()) < 1e-9
    torch.testing.assert_close(weight[:, 0], weight[:, 4], rtol=1e-6, atol=1e-9)
    plain, plain_bias = ridge_regression(x, y, l2=0.0)
    prediction = doubled.double() @ weight.T + bias
    torch.testing.assert_close(prediction, x.double() @ plain.T + plain_bias, rtol=1e-6, atol=1e-6)


def test_constant_states_predict_the_mean():
    y = torch.randn(20, 3)
    weight, bias = ridge_regression(torch.ones(20, 4), y, l2=0.0)
    assert not weight.any()
    torch.testing.assert_close(bias, y.double().mean(0))


def test_a_large_mean_costs_no_digits():
    x, y, _ = linear_data(300, 5, 2, noise=0.5)
    weight, _ = ridge_regression(x.double(), y, l2=1.0)
    shifted, _ = ridge_regression(x.double() + 1e8, y, l2=1.0)
    torch.testing.assert_close(shifted, weight, rtol=1e-5, atol=1e-6)


def test_blocks_of_rows_do_not_change_the_result(monkeypatch):
    x, y, _ = linear_data(100, 5, 2, noise=0.5)
    whole = ridge_regression(x, y, l2=2.0)
    monkeypatch.setattr("uqabench.integrations.ridge._ROWS", 7)
    for blocked, once in zip(ridge_regression(x, y, l2=2.0), whole, strict=True):
        torch.testing.assert_close(blocked, once, rtol=1e-10, atol=1e-10)


def test_r_squared_is_one_minus_residual_over_total():
    x, y, _ = linear_data(400, 6, 9, noise=0.2)
    fit = fit_ridge(x, y, l2=0.5)
    weight, bias = ridge_regression(x, y, l2=0.5)
    assert torch.equal(fit.weight, weight) and torch.equal(fit.bias, bias) and fit.l2 == 0.5
    a, b = x.double().numpy(), y.double().numpy()
    residual = ((b - a @ weight.numpy().T - bias.numpy()) ** 2).sum()
    assert fit.r_squared == pytest.approx(1 - residual / ((b - b.mean(0)) ** 2).sum(), abs=1e-9)
    left_out = np.arange(400) % 5 == 4
    weight, bias = ridge_regression(x[~left_out], y[~left_out], l2=0.5)
    residual = ((b - a @ weight.numpy().T - bias.numpy())[left_out] ** 2).sum()
    total = ((b - b[left_out].mean(0))[left_out] ** 2).sum()
    assert fit.held_out_r_squared == pytest.approx(1 - residual / total, abs=1e-9)
    assert fit.metrics() == {
        "ridge_l2": 0.5,
        "ridge_r_squared": fit.r_squared,
        "ridge_held_out_r_squared": fit.held_out_r_squared,
    }


def test_predicting_the_mean_explains_nothing():
    _, y, _ = linear_data(40, 4, 2, noise=1.0)
    assert fit_ridge(torch.ones(40, 3), y).r_squared == pytest.approx(0.0)


def test_the_penalty_is_the_best_on_held_out_rows():
    """More inputs than a noisy sample of rows can pin down: a tiny penalty overfits, a huge one predicts the mean."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 60, generator=generator)
    y = x[:, :3] @ torch.randn(3, 2, generator=generator) + 2 * torch.randn(100, 2, generator=generator)
    scores = {}
    for scale in L2_GRID:
        fit = fit_ridge(x, y, grid=[scale])
        scores[fit.held_out_r_squared] = fit.l2
    chosen = fit_ridge(x, y)
    assert chosen.l2 == scores[max(scores)]
    assert chosen.l2 not in (min(scores.values()), max(scores.values()))
    assert chosen.held_out_r_squared > 0


def test_the_choice_does_not_depend_on_the_scale_of_the_states():
    x, y, _ = linear_data(100, 8, 3, noise=3.0)
    small = fit_ridge(x.double(), y)
    large = fit_ridge(x.double() * 1e3, y)
    assert large.l2 == pytest.approx(small.l2 * 1e6)
    torch.testing.assert_close(large.weight * 1e3, small.weight, rtol=1e-4, atol=1e-6)


def test_rows_of_one_user_are_held_out_together():
    """Targets are a private code of each user: rows of the same user in both parts would look predictable."""
    generator = torch.Generator().manual_seed(0)
    user = torch.arange(40).repeat_interleave(5)
    x = torch.randn(40, 60, generator=generator)[user]
    y = torch.randn(40, 3, generator=generator)[user]
    apart = fit_ridge(x, y, grid=[1e-6])
    together = fit_ridge(x, y, grid=[1e-6], groups=user)
    assert apart.held_out_r_squared > 0.99
    assert together.held_out_r_squared < 0.1


def test_same_inputs_same_bits():
    x, y, _ = linear_data(80, 8, 3, noise=1.0)
    first, second = fit_ridge(x, y), fit_ridge(x, y)
    assert first.metrics() == second.metrics()
    assert torch.equal(first.weight, second.weight) and torch.equal(first.bias, second.bias)


@pytest.mark.parametrize(
    ("x", "y", "l2", "message"),
    [
        (torch.ones(3, 2), torch.ones(4, 2), 1.0, "equally many rows"),
        (torch.ones(0, 2), torch.ones(0, 2), 1.0, "equally many rows"),
        (torch.ones(3), torch.ones(3, 1), 1.0, "must be matrices"),
        (torch.ones(3, 2), torch.tensor([[1.0], [float("nan")], [2.0]]), 1.0, "y is not finite in row 1"),
        (torch.ones(3, 2), torch.ones(3, 2), -1.0, "l2 must be zero or a positive number, not -1.0"),
        (torch.ones(3, 2), torch.ones(3, 2), float("nan"), "not nan"),
    ],
)
def test_bad_input_is_named(x, y, l2, message):
    with pytest.raises(InputError, match=message):
        ridge_regression(x, y, l2=l2)


def test_bad_groups_and_targets_are_named():
    x, y, _ = linear_data(30, 6, 9, noise=0.2)
    with pytest.raises(InputError, match="3 users are too few"):
        fit_ridge(x, y, groups=torch.arange(30) % 3)
    with pytest.raises(InputError, match="groups has shape"):
        fit_ridge(x, y, groups=torch.arange(29))
    with pytest.raises(InputError, match="undefined: all rows of the target are equal"):
        fit_ridge(x, torch.ones(30, 2))
