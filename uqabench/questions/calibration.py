"""Whether a method is right as often as it is sure, and whether it prefers a letter: from answers and logits alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uqabench.errors import InputError
from uqabench.vocabulary import LETTERS

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Accuracy by confidence over B bins that hold an answer (Guo et al. 2017), in percent.

    confidence, accuracy: (B,) means of a bin; n: (B,) answers in it. error: the expected calibration error, the mean
    over answers of a bin's distance between the two, in points. brier: mean squared distance of the four probabilities
    from the truth, 0 to 2 (Brier 1950).
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    n: np.ndarray
    error: float
    brier: float


def probabilities(logits: np.ndarray) -> np.ndarray:
    """(Q, 4) probabilities of the letters among each other: the softmax of their logits (Q, 4)."""
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


def reliability(logits: np.ndarray, answer: np.ndarray, bins: int = BINS) -> Reliability:
    """The reliability curve of answers with the largest logit. logits: (Q, 4). answer: (Q,) the right letter, 0..3.

    Confidence is the probability of the letter given; bins are of equal width and hold their upper end.
    """
    if logits.shape != (len(answer), len(LETTERS)) or not len(answer):
        raise InputError(f"logits have shape {logits.shape}: give {len(LETTERS)} for each of {len(answer)} answers.")
    found = probabilities(np.asarray(logits, np.float64))
    confidence, right = found.max(axis=1), found.argmax(axis=1) == answer
    bin_ = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    n = np.bincount(bin_, minlength=bins)
    sure, correct = (np.bincount(bin_, weights=values, minlength=bins) for values in (confidence, right))
    held = n > 0
    truth = np.eye(len(LETTERS))[answer]
    return Reliability(
        100 * sure[held] / n[held],
        100 * correct[held] / n[held],
        n[held],
        100 * float(np.abs(sure - correct).sum()) / len(answer),
        float(((found - truth) ** 2).sum(axis=1).mean()),
    )


@dataclass(frozen=True)
class Positions:
    """By letter (4,), in percent: how often it is right, how often it is given, and how often it is given where it is
    right (NaN where it never is). spread: the standard deviation of the last over the letters, in points: 0 without a
    preference (RStd of Zheng et al. 2024). given is below 100 in sum where answers are no letter."""

    right: np.ndarray
    given: np.ndarray
    found: np.ndarray
    spread: float


def positions(given: np.ndarray, answer: np.ndarray) -> Positions:
    """How a method's answers lie by letter. given: (Q,) 0..3, -1 for none. answer: (Q,) the right letter, 0..3."""
    truth = np.bincount(answer, minlength=len(LETTERS))
    shares = np.bincount(given[given >= 0], minlength=len(LETTERS))
    hits = np.bincount(answer[given == answer], minlength=len(LETTERS))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = 100 * hits / truth
    return Positions(100 * truth / len(answer), 100 * shares / len(answer), found, float(np.nanstd(found)))
