"""Variance components against the restricted likelihood, statsmodels' mean squares, and what was planted."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy.optimize import minimize
from statsmodels.stats.anova import anova_lm

from uqabench.errors import InputError
from uqabench.questions.variance import variance_components


def _drawn(rng, seeds, users, each, sd_seed, sd_user, sd_question, sd_rest):
    """Continuous values of the model, (S, Q) with `each` questions a user: the estimates know no bounds of values."""
    user = np.repeat(np.arange(users), each)
    parts = (rng.normal(0, sd_seed, (seeds, 1)), rng.normal(0, sd_user, users)[user])
    return sum(parts) + rng.normal(0, sd_question, len(user)) + rng.normal(0, sd_rest, (seeds, len(user))), user


def test_against_restricted_maximum_likelihood():
    """The restricted likelihood written out and maximised: on a balanced design the ANOVA estimates are its optimum."""
    values, user = _drawn(np.random.default_rng(1), 4, 12, 3, 0.5, 1.0, 0.7, 0.6)
    found = variance_components(values, user)
    seeds, n = values.shape
    groups = np.repeat(np.arange(seeds), n), np.tile(user, seeds), np.tile(np.arange(n), seeds)
    same = [group[:, None] == group for group in groups]
    y, ones = values.ravel(), np.ones(values.size)

    def minus_log_likelihood(logarithms):
        *parts, rest = np.exp(logarithms)
        inverse = np.linalg.inv(
            sum(part * each for part, each in zip(parts, same, strict=True)) + rest * np.eye(len(y))
        )
        information = ones @ inverse @ ones
        residual = y - ones @ inverse @ y / information
        return -0.5 * (np.linalg.slogdet(inverse)[1] - np.log(information) - residual @ inverse @ residual)

    fit = minimize(minus_log_likelihood, np.zeros(4), method="L-BFGS-B")
    assert fit.success
    expected = np.exp(fit.x)
    np.testing.assert_allclose([found.seed, found.user, found.question, found.rest], expected, rtol=2e-3)


def test_mean_squares_against_statsmodels():
    values, user = _drawn(np.random.default_rng(4), 3, 6, 2, 0.5, 1.0, 0.7, 0.6)
    seeds, n = values.shape
    question = np.tile(np.arange(n), seeds)
    frame = pd.DataFrame({"y": values.ravel(), "seed": np.repeat(np.arange(seeds), n), "user": np.tile(user, seeds)})
    frame["question"] = question % 2  # of its user
    fit = smf.ols("y ~ C(seed) + C(user) + C(user):C(question)", frame).fit()
    squares = anova_lm(fit)
    mean = squares["sum_sq"] / squares["df"]
    rest, asked = mean["Residual"], mean["C(user):C(question)"]
    found = variance_components(values, user)
    assert found.rest == pytest.approx(rest)
    assert found.question == pytest.approx(max(0, (asked - rest) / seeds))
    assert found.user == pytest.approx(max(0, (mean["C(user)"] - asked) / (2 * seeds)))
    assert found.seed == pytest.approx(max(0, (mean["C(seed)"] - rest) / n))


def test_what_was_planted_is_found_with_unequal_numbers_of_questions():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(60):
        user = np.repeat(np.arange(80), rng.integers(1, 12, 80))
        values = rng.normal(0, 0.3, (5, 1)) + rng.normal(0, 0.8, 80)[user] + rng.normal(0, 0.5, len(user))
        values = values + rng.normal(0, 0.6, (5, len(user)))
        each = variance_components(values, user)
        found.append([each.seed, each.user, each.question, each.rest])
    np.testing.assert_allclose(np.mean(found, axis=0), [0.09, 0.64, 0.25, 0.36], rtol=0.15)


def test_the_score_varies_as_said():
    """The variance of the mean over draws of everything is the sum of the parts that the estimate names."""
    rng = np.random.default_rng(2)
    means, said = [], []
    for _ in range(400):
        values, user = _drawn(rng, 3, 20, 4, 0.2, 0.5, 0.4, 0.5)
        means.append(values.mean())
        said.append(sum(variance_components(values, user).of_score.values()))
    assert np.mean(said) == pytest.approx(np.var(means), rel=0.2)


def test_equal_seeds_leave_nothing_to_them():
    rng = np.random.default_rng(3)
    user = np.repeat(np.arange(30), 4)
    correct = np.tile(rng.random(120) < 0.6, (3, 1))
    found = variance_components(correct, user)
    assert found.seed == 0 and found.rest == pytest.approx(0)
    shares = found.shares()
    assert shares["seeds"] == 0 and sum(shares.values()) == pytest.approx(100)
    assert sum(found.score_shares().values()) == pytest.approx(100)


def test_nothing_varies_and_too_little_is_refused():
    found = variance_components(np.ones((2, 6), bool), np.arange(6) % 3)
    assert all(np.isnan(share) for share in found.shares().values())
    for correct, user in ((np.ones((1, 4)), np.arange(4)), (np.ones((2, 4)), np.zeros(4))):
        with pytest.raises(InputError, match="two seeds or more to questions of two users"):
            variance_components(correct, user)
