"""Intervals and tests against closed formulas, brute force, and simulation with clustered users."""

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest, kstest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from uqabench.errors import InputError
from uqabench.questions import statistics
from uqabench.questions.statistics import (
    accuracy,
    holm,
    paired_difference,
    percentile_interval,
    resampled_accuracies,
    significantly_best,
    wilson,
)


def clustered(rng: np.random.Generator, users: int = 60, questions: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Answers of users who differ strongly in how well they are known; the true accuracy is 40 %."""
    skill = rng.beta(0.8, 1.2, users)
    user = np.repeat(np.arange(users), questions)
    return rng.random(users * questions) < skill[user], user


def test_bootstrap_covers_the_truth_where_questions_of_a_user_depend_on_each_other():
    rng = np.random.default_rng(1)
    by_user = by_question = 0
    runs = 300
    for seed in range(runs):
        correct, user = clustered(rng)
        low, high = accuracy(correct, user, n_boot=1000, seed=seed).ci95
        by_user += low <= 40 <= high
        low, high = wilson(correct).ci95
        by_question += low <= 40 <= high
    assert 0.90 <= by_user / runs <= 0.985
    assert by_question / runs < 0.85  # what resampling users is for


def test_bootstrap_agrees_with_drawing_users_one_by_one():
    rng = np.random.default_rng(2)
    user = rng.integers(0, 25, 400)
    correct = rng.random(400) < 0.2 + 0.5 * (user % 2)
    found = accuracy(correct, user, n_boot=20_000, seed=0)
    of_user = [correct[user == u] for u in np.unique(user)]
    drawn = [
        100 * np.concatenate([of_user[u] for u in rng.integers(0, len(of_user), len(of_user))]).mean()
        for _ in range(5000)
    ]
    assert found.accuracy == pytest.approx(100 * correct.mean())
    assert found.ci95 == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.7)


def test_sets_of_answers_are_resampled_with_the_same_users():
    """Each set alone has the interval of `accuracy`, a difference that of `paired_difference`; a set may have fewer
    users than another."""
    rng = np.random.default_rng(7)
    correct, user = clustered(rng)
    other = correct ^ (rng.random(len(correct)) < 0.1)
    drawn = resampled_accuracies([(correct, user), (other, user), (other[:80], user[:80])], n_boot=20_000, seed=0)
    assert drawn.shape == (20_000, 3) and drawn[:, 2].mean() == pytest.approx(100 * other[:80].mean(), abs=1)
    for column, right in enumerate([correct, other]):
        expected = accuracy(right, user, n_boot=20_000, seed=1).ci95
        assert percentile_interval(drawn[:, column]) == pytest.approx(expected, abs=0.7)
    paired = paired_difference(correct, other, user, n_boot=20_000, n_perm=10, seed=1).ci95
    assert percentile_interval(drawn[:, 0] - drawn[:, 1]) == pytest.approx(paired, abs=0.3)


def test_draws_do_not_depend_on_how_many_are_in_memory_at_once(monkeypatch):
    correct, user = clustered(np.random.default_rng(8))
    expected = resampled_accuracies([(correct, user)], n_boot=50, seed=3)
    monkeypatch.setattr(statistics, "_AT_ONCE", 7)
    assert np.array_equal(resampled_accuracies([(correct, user)], n_boot=50, seed=3), expected)


def test_results_depend_on_the_seed_only_not_on_order_or_names_of_users():
    rng = np.random.default_rng(3)
    correct, user = clustered(rng)
    other = rng.random(len(correct)) < 0.5
    order = rng.permutation(len(correct))
    renamed = np.array([f"{(u * 7919) % 1009:x}" for u in user])
    expected = accuracy(correct, user, seed=5)
    assert accuracy(correct[order], renamed[order], seed=5) == expected
    assert accuracy(correct, user, seed=6).ci95 != expected.ci95
    pair = paired_difference(correct, other, user, seed=5)
    assert paired_difference(correct[order], other[order], renamed[order], seed=5) == pair


def test_accuracy_with_one_question_a_user_is_as_wide_as_the_normal_interval():
    correct = np.arange(1000) < 300
    low, high = accuracy(correct, np.arange(1000), n_boot=10_000, seed=0).ci95
    half = 1.96 * 100 * np.sqrt(0.3 * 0.7 / 1000)
    assert (low, high) == pytest.approx((30 - half, 30 + half), abs=0.3)


@pytest.mark.parametrize("share, expected", [(1.0, (69.15, 100)), (0.0, (0, 30.85))])
def test_without_any_error_the_exact_bound_over_users_replaces_the_bootstrap(share, expected):
    found = accuracy(np.full(30, bool(share)), np.repeat(np.arange(10), 3), seed=0)
    assert (found.accuracy, found.n) == (100 * share, 30)
    assert found.ci95 == pytest.approx(expected, abs=0.01)
    exact = binomtest(int(10 * share), 10).proportion_ci(method="exact")
    assert found.ci95 == pytest.approx((100 * exact.low, 100 * exact.high))


def test_one_user_says_nothing_about_others_and_no_question_gives_no_number():
    assert accuracy(np.array([True, False, True]), np.zeros(3, int), seed=0).ci95 == (0, 100)
    one = paired_difference(np.array([True, True]), np.array([False, False]), np.zeros(2, int), seed=0)
    assert one.difference == 100 and one.ci95 == (-100, 100) and one.p_value == 1
    none = np.zeros(0, bool)
    for empty in (accuracy(none, none, seed=0), wilson(none)):
        assert empty.n == 0 and np.isnan([empty.accuracy, *empty.ci95]).all()
    empty = paired_difference(none, none, none, seed=0)
    assert empty.n == 0 and np.isnan([empty.difference, *empty.ci95, empty.p_value, empty.detectable]).all()


@pytest.mark.parametrize("right, n, low, high", [(8, 10, 49.02, 94.33), (0, 10, 0, 27.75), (10, 10, 72.25, 100)])
def test_wilson_gives_the_known_numbers_and_names_its_unit(right, n, low, high):
    found = wilson(np.arange(n) < right)
    assert found.ci95 == pytest.approx((low, high), abs=0.005)
    exact = binomtest(right, n).proportion_ci(method="wilson")
    assert found.ci95 == pytest.approx((100 * exact.low, 100 * exact.high))
    assert found.unit == "question" and accuracy(np.arange(n) < right, np.arange(n), seed=0).unit == "user"


def test_permutation_p_is_that_of_all_sign_flips():
    rng = np.random.default_rng(4)
    user = np.repeat(np.arange(10), 6)
    a, b = rng.random(60) < 0.6, rng.random(60) < 0.4
    net = np.array([(a & ~b)[user == u].sum() - (b & ~a)[user == u].sum() for u in range(10)])
    flips = np.array(list(itertools.product((-1, 1), repeat=10))) @ net
    exact = (np.abs(flips) >= abs(net.sum())).mean()
    found = paired_difference(a, b, user, n_perm=40_000, seed=0)
    assert found.p_value == pytest.approx(exact, abs=0.01)
    assert found.difference == pytest.approx(100 * (a.mean() - b.mean()))
    assert paired_difference(b, a, user, n_perm=40_000, seed=0).p_value == found.p_value


def test_permutation_p_is_uniform_when_nothing_differs_although_users_cluster():
    rng = np.random.default_rng(5)
    by_user, by_question = [], []
    for seed in range(400):
        user = np.repeat(np.arange(40), 10)
        lean = rng.normal(0, 0.25, 40)[user]  # a user's questions all lean to one of two equal methods
        a, b = rng.random(400) < 0.5 + lean, rng.random(400) < 0.5 - lean
        by_user.append(paired_difference(a, b, user, n_boot=10, n_perm=999, seed=seed).p_value)
        only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
        by_question.append(binomtest(only_a, only_a + only_b).pvalue)  # McNemar's exact test
    assert kstest(by_user, "uniform").pvalue > 1e-3
    assert 0.02 <= np.mean(np.array(by_user) <= 0.05) <= 0.09
    assert np.mean(np.array(by_question) <= 0.05) > 0.15


def test_paired_interval_covers_and_the_smallest_p_is_one_draw():
    user = np.repeat(np.arange(50), 4)
    a, b = np.ones(200, bool), user % 5 == 0
    found = paired_difference(a, b, user, n_perm=999, seed=0)
    assert found.p_value == 1 / 1000 and found.difference == 80 and found.n == 200
    assert 60 < found.ci95[0] < 80 < found.ci95[1] < 95
    same = paired_difference(b, b, user, seed=0)
    assert (same.difference, same.ci95, same.p_value) == (0, (0, 0), 1)


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_holm_is_that_of_a_library(size):
    rng = np.random.default_rng(size)
    p_values = np.round(rng.random(size) ** 3, 2)  # with ties
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(expected)
    assert holm([]).shape == (0,)


def test_detectable_difference_is_that_of_the_t_test_with_one_question_a_user():
    rng = np.random.default_rng(7)
    a, b = rng.random(400) < 0.5, rng.random(400) < 0.4
    found = paired_difference(a, b, np.arange(400), n_boot=10, n_perm=10, seed=0)
    deviation = np.std(a.astype(float) - b, ddof=1)
    expected = 100 * deviation * TTestPower().solve_power(nobs=400, alpha=0.05, power=0.8)
    assert found.detectable == pytest.approx(expected, rel=0.01)  # the normal and Student's quantiles
    assert (found.users, found.n) == (400, 400)


def test_detectable_difference_counts_users_not_questions():
    rng = np.random.default_rng(8)
    a, b = rng.random(200) < 0.5, rng.random(200) < 0.4
    single = paired_difference(a, b, np.arange(200), n_boot=10, n_perm=10, seed=0)
    copied = [np.repeat(values, 5) for values in (a, b, np.arange(200))]  # five equal questions of a user say no more
    assert paired_difference(*copied, n_boot=10, n_perm=10, seed=0).detectable == pytest.approx(single.detectable)


def test_a_detectable_difference_is_found_four_times_in_five():
    rng = np.random.default_rng(9)
    user = np.repeat(np.arange(60), 6)

    def answers(gain: float) -> tuple[np.ndarray, np.ndarray]:
        lean = rng.normal(0, 0.2, 60)[user]
        return rng.random(360) < 0.5 + gain + lean, rng.random(360) < 0.5

    points = np.mean([paired_difference(*answers(0), user, n_boot=2, n_perm=2, seed=0).detectable for _ in range(50)])
    found = [paired_difference(*answers(points / 100), user, n_boot=2, n_perm=999, seed=i).p_value for i in range(300)]
    assert 0.72 <= np.mean(np.array(found) < 0.05) <= 0.88


def test_nothing_is_detectable_where_nothing_varies():
    same = np.arange(20) % 2 == 0
    assert np.isnan(paired_difference(same, same, np.arange(20), seed=0).detectable)
    assert np.isnan(paired_difference(same, ~same, np.zeros(20, int), seed=0).detectable)


def test_the_best_is_named_only_where_it_beats_every_other():
    rng = np.random.default_rng(10)
    user = np.repeat(np.arange(50), 8)
    answers = np.stack([rng.random(400) < share for share in (0.4, 0.8, 0.42)])
    assert significantly_best(answers, user, seed=0) == 1
    close = np.concatenate([answers, answers[1:2] ^ (rng.random(400) < 0.02)])
    assert significantly_best(close, user, seed=0) is None
    assert significantly_best(answers[:1], user, seed=0) is None
    assert significantly_best(answers[:, :0], user[:0], seed=0) is None


def test_among_equals_a_best_is_named_no_more_often_than_the_level():
    rng = np.random.default_rng(11)
    user = np.repeat(np.arange(40), 5)
    named = [significantly_best(rng.random((3, 200)) < 0.5, user, n_perm=999, seed=i) is not None for i in range(300)]
    assert np.mean(named) <= 0.06


@pytest.mark.parametrize(
    "call",
    [
        lambda: accuracy(np.array([0.5, 1.0]), np.arange(2), seed=0),
        lambda: accuracy(np.ones((2, 2), bool), np.arange(2), seed=0),
        lambda: accuracy(np.ones(2, bool), np.arange(3), seed=0),
        lambda: paired_difference(np.ones(2, bool), np.ones(3, bool), np.arange(2), seed=0),
    ],
)
def test_arrays_of_wrong_type_or_length_are_refused(call):
    with pytest.raises(InputError, match="correct"):
        call()
