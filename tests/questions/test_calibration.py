"""Calibration and preference for letters, against other formulations and by their properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from uqabench.errors import InputError
from uqabench.questions.calibration import BINS, positions, probabilities, reliability


def test_probabilities_are_a_softmax():
    logits = np.random.default_rng(0).normal(0, 300, (50, 4))
    np.testing.assert_allclose(probabilities(logits), softmax(logits, axis=1))


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 400), st.floats(0.1, 5))
def test_the_error_against_a_loop_over_answers(seed, n, scale):
    rng = np.random.default_rng(seed)
    logits, answer = rng.normal(0, scale, (n, 4)), rng.integers(0, 4, n)
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, right in zip(softmax(logits, axis=1), answer, strict=True):
        # A bin holds its upper end: the confidence 1 / 15 lies in the first.
        number = next(b for b in range(BINS) if row.max() <= (b + 1) / BINS or b == BINS - 1)
        bins.setdefault(number, []).append((row.max(), row.argmax() == right))
    error = sum(abs(sum(c for c, _ in held) - sum(r for _, r in held)) for held in bins.values()) / n
    found = reliability(logits, answer)
    assert found.error == pytest.approx(100 * error, abs=1e-9)
    assert found.n.sum() == n and (np.diff(found.confidence) > 0).all()
    assert (found.accuracy * found.n / 100).sum() == pytest.approx((logits.argmax(1) == answer).sum())


def test_sure_and_right_is_calibrated_and_a_quarter_each_scores_three_quarters():
    answer = np.array([0, 1, 2, 3])
    perfect = reliability(1000.0 * np.eye(4), answer)
    assert perfect.error == pytest.approx(0) and perfect.brier == pytest.approx(0)
    assert reliability(np.zeros((4, 4)), answer).brier == pytest.approx(0.75)


def test_drawn_answers_are_calibrated():
    """Answers that come true as often as they are said to have an error that is only chance's."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1.5, (60_000, 4))
    answer = (rng.random((len(logits), 1)) > probabilities(logits).cumsum(axis=1)).sum(axis=1)
    assert reliability(logits, answer).error < 1
    assert reliability(3 * logits, answer).error > 10


def test_logits_of_another_shape_are_refused():
    with pytest.raises(InputError, match="give 4 for each of 3 answers"):
        reliability(np.zeros((3, 5)), np.zeros(3, int))


def test_positions_by_hand():
    found = positions(np.array([0, 0, 0, 1, -1, 3]), np.array([0, 1, 0, 1, 3, 3]))
    np.testing.assert_allclose(found.given, 100 * np.array([3, 1, 0, 1]) / 6)
    np.testing.assert_allclose(found.right, 100 * np.array([2, 2, 0, 2]) / 6)
    np.testing.assert_allclose(found.found, [100, 50, np.nan, 50])
    assert found.spread == pytest.approx(np.std([100, 50, 50]))


def test_a_method_without_preference_has_no_spread():
    answer = np.arange(400) % 4
    assert positions(answer, answer).spread == 0
    always_a = positions(np.zeros(400, int), answer)
    assert always_a.spread == pytest.approx(np.std([100, 0, 0, 0])) and always_a.given[0] == 100
