"""Variance components against statsmodels' REML and against what was planted."""

import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from uqabench.errors import InputError
from uqabench.questions.variance import variance_components


def _drawn(rng, seeds, users, each, sd_seed, sd_user, sd_question, sd_rest):
    """Continuous values of the model, (S, Q) with `each` questions a user: the estimates know no bounds of values."""
    user = np.repeat(np.arange(users), each)
    parts = (rng.normal(0, sd_seed, (seeds, 1)), rng.normal(0, sd_user, users)[user])
    return sum(parts) + rng.normal(0, sd_question, len(user)) + rng.normal(0, sd_rest, (seeds, len(user))), user


def test_against_restricted_maximum_likelihood():
    values, user = _drawn(np.random.default_rng(0), 4, 12, 3, 0.5, 1.0, 0.7, 0.6)
    found = variance_components(values, user)
    seeds, n = values.shape
    frame = pd.DataFrame(
        {"y": values.ravel(), "seed": np.repeat(np.arange(seeds), n), "user": np.tile(user, seeds),
         "question": np.tile(np.arange(n), seeds), "all": 1}
    )  # fmt: skip
    parts = {name: f"0 + C({name})" for name in ("seed", "user", "question")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = smf.mixedlm("y ~ 1", frame, groups="all", vc_formula=parts).fit(reml=True)
    by_name = dict(zip(fit.model.exog_vc.names, fit.vcomp, strict=True))
    assert [found.seed, found.user, found.question] == pytest.approx(
        [by_name["seed"], by_name["user"], by_name["question"]], rel=0.02
    )
    assert found.rest == pytest.approx(fit.scale, rel=0.02)


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
