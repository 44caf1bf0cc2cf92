"""Accuracy with its uncertainty, and paired comparison of methods, from right/wrong answers.

Questions about one user are not independent, so the unit of resampling is the user: the bootstrap draws users, the
permutation test flips the sign of a user's whole difference, and the detectable difference follows from how much the
users' differences vary. Wilson's intervals treat questions as independent; their results say so in `unit`.

What a user contributes is a few small counts, and users with equal counts are exchangeable. Resampling therefore draws
how often each *distinct* contribution occurs (multinomial, binomial), which has exactly the distribution of drawing
users one by one, takes milliseconds, and depends neither on the order of the questions nor on how users are named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uqabench.errors import InputError

LEVEL = 0.95
POWER = 0.8
_Z = 1.959963984540054  # standard normal quantile at (1 + LEVEL) / 2
_Z_POWER = 0.8416212335729143  # standard normal quantile at POWER


@dataclass(frozen=True)
class Accuracy:
    """Accuracy in percent, its 95 % interval in percent, and the number of questions.

    `unit` is what the interval treats as independent: "user" or "question". With n = 0 all figures are NaN.
    """

    accuracy: float
    ci95: tuple[float, float]
    n: int
    unit: str = "user"


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of a minus accuracy of b in percentage points on the same questions, 95 % interval, two-sided p.

    The user is the unit of interval and test. `n` questions are about `users` users. `detectable` is the smallest true
    difference, in points, that a two-sided test at the 5 % level finds with a power of 80 % on as many users whose
    differences vary as these do; NaN where they do not vary or there is but one user.
    """

    difference: float
    ci95: tuple[float, float]
    p_value: float
    n: int
    users: int
    detectable: float


def accuracy(correct: np.ndarray, user: np.ndarray, *, n_boot: int = 2000, seed: int) -> Accuracy:
    """Micro-averaged accuracy with the percentile bootstrap over users (Efron 1979; cluster bootstrap).

    correct: (Q,) bool. user: (Q,) integers or strings, the user that each question is about.

    The bootstrap says nothing where nothing varies. If every answer is right (or wrong) its interval would have no
    width; the exact binomial bound with one trial a user (Clopper and Pearson 1934) takes its place. A single user
    says nothing about other users: the interval is [0, 100].
    """
    correct, user = _check(correct, user)
    if len(correct) == 0:
        return Accuracy(math.nan, (math.nan, math.nan), 0)
    right, asked = _sums(user, correct), _sums(user, np.ones_like(correct))
    share = float(correct.mean())
    users = len(asked)
    if users == 1:
        return Accuracy(100 * share, (0.0, 100.0), len(correct))
    if share in (0.0, 1.0):
        bound = 100 * ((1 - LEVEL) / 2) ** (1 / users)
        return Accuracy(100 * share, (bound, 100.0) if share else (0.0, 100 - bound), len(correct))
    return Accuracy(100 * share, _bootstrap(right, asked, n_boot, seed), len(correct))


def wilson(correct: np.ndarray) -> Accuracy:
    """Accuracy with Wilson's score interval (Wilson 1927), which takes questions as independent; correct: (Q,) bool."""
    correct, _ = _check(correct, np.arange(np.size(correct)))
    n = len(correct)
    if n == 0:
        return Accuracy(math.nan, (math.nan, math.nan), 0, "question")
    share = float(correct.mean())
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n * n))
    # Rounding must not leave the bound beside the exact 0 or 1 that the formula gives at the ends.
    low = 0.0 if share == 0 else centre - half
    high = 1.0 if share == 1 else centre + half
    return Accuracy(100 * share, (100 * low, 100 * high), n, "question")


def paired_difference(
    correct_a: np.ndarray,
    correct_b: np.ndarray,
    user: np.ndarray,
    *,
    n_boot: int = 2000,
    n_perm: int = 10_000,
    seed: int,
) -> PairedDifference:
    """Compare a and b on the same questions: sign-flip permutation test and percentile bootstrap, both over users.

    correct_a, correct_b: (Q,) bool, in the same order. user: (Q,) the user that each question is about.

    Under the null hypothesis a user's net difference (questions that only a got right minus those that only b did) is
    as likely to have either sign. p = (1 + flips at least as extreme) / (1 + n_perm), two-sided (Phipson and Smyth
    2010), so it is never below 1 / (1 + n_perm). With one user the interval is [-100, 100].
    """
    correct_a, user = _check(correct_a, user)
    correct_b, _ = _check(correct_b, user)
    n = len(correct_a)
    if n == 0:
        return PairedDifference(math.nan, (math.nan, math.nan), math.nan, 0, 0, math.nan)
    net = _sums(user, correct_a) - _sums(user, correct_b)
    asked = _sums(user, np.ones_like(correct_a))
    interval = (-100.0, 100.0) if len(asked) == 1 else _bootstrap(net, asked, n_boot, seed)
    return PairedDifference(
        100 * float(net.sum()) / n,
        interval,
        _sign_flip(net, n_perm, seed),
        n,
        len(asked),
        _detectable(net, asked),
    )


def above(correct: np.ndarray, user: np.ndarray, share: float, *, n_perm: int = 10_000, seed: int) -> float:
    """One-sided p that the accuracy is above `share` (0 to 1) no more than chance would have it.

    correct: (Q,) bool. user: (Q,) the user that each question is about. The sign-flip test over users of
    `paired_difference`, on a user's right answers beyond `share` of the questions asked.
    """
    correct, user = _check(correct, user)
    if len(correct) == 0:
        return math.nan
    net = _sums(user, correct) - share * _sums(user, np.ones_like(correct))
    return _sign_flip(net, n_perm, seed, one_sided=True)


def paired_above(
    correct_a: np.ndarray, correct_b: np.ndarray, user: np.ndarray, *, n_perm: int = 10_000, seed: int
) -> float:
    """One-sided p that a is better than b by chance: `paired_difference`'s test; correct_a, correct_b: (Q,) bool."""
    correct_a, user = _check(correct_a, user)
    correct_b, _ = _check(correct_b, user)
    if len(correct_a) == 0:
        return math.nan
    return _sign_flip(_sums(user, correct_a) - _sums(user, correct_b), n_perm, seed, one_sided=True)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """(M,) float64 p values adjusted for M tests (Holm 1979): rejecting those below 0.05 keeps the probability of any
    wrong rejection below 0.05, whatever the dependence between the tests."""
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1)))
    return adjusted


def significantly_best(correct: np.ndarray, user: np.ndarray, *, n_perm: int = 10_000, seed: int) -> int | None:
    """Index of the method that is better than every other one at the 5 % level; None where there is no such method.

    correct: (M, Q) bool, a row a method, on the same questions. user: (Q,) the user that each question is about.
    The best method is compared with each other one by the permutation test of `paired_difference`, adjusted by `holm`.
    """
    if len(correct) < 2 or correct.shape[1] == 0:
        return None
    best = int(np.argmax(correct.mean(axis=1)))
    right = [_sums(user, row) for row in correct]
    nets = [right[best] - right[index] for index in range(len(correct)) if index != best]
    p_values = [_sign_flip(net, n_perm, seed) if net.sum() > 0 else 1.0 for net in nets]
    return best if holm(p_values).max() < 1 - LEVEL else None


def _check(correct: np.ndarray, user: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    correct, user = np.asarray(correct), np.asarray(user)
    if correct.ndim != 1 or (correct.dtype != bool and correct.size):
        raise InputError(
            f"'correct' must be a one-dimensional array of bool, not {correct.dtype} of shape {correct.shape}."
        )
    if user.shape != correct.shape:
        raise InputError(f"'user' has shape {user.shape} and 'correct' {correct.shape}: give one user a question.")
    return correct.astype(bool), user


def _sums(user: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(U,) int64 sum of bool `values` for each distinct user."""
    _, index = np.unique(user, return_inverse=True)
    return np.bincount(index.ravel(), weights=values).astype(np.int64)


def _bootstrap(numerator: np.ndarray, asked: np.ndarray, n_boot: int, seed: int) -> tuple[float, float]:
    """Percentile interval, in percent, of sum(numerator) / sum(asked) over users drawn with replacement."""
    kinds, counts = np.unique(np.stack([numerator, asked], axis=1), axis=0, return_counts=True)
    draws = _generator(seed).multinomial(counts.sum(), counts / counts.sum(), size=n_boot)  # (n_boot, kinds)
    numerators, totals = (draws @ kinds).T
    low, high = np.quantile(numerators / totals, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return 100 * float(low), 100 * float(high)


def _sign_flip(net: np.ndarray, n_perm: int, seed: int, *, one_sided: bool = False) -> float:
    """p of |sum(net)|, or `one_sided` of sum(net), when each entry's sign is flipped with probability one half."""
    sizes, counts = np.unique(np.abs(net[net != 0]), return_counts=True)
    positive = _generator(seed).binomial(counts, 0.5, size=(n_perm, len(counts)))
    flipped = (2 * positive - counts) @ sizes
    extreme = flipped >= net.sum() if one_sided else np.abs(flipped) >= abs(net.sum())
    return float(1 + extreme.sum()) / (1 + n_perm)


def _detectable(net: np.ndarray, asked: np.ndarray) -> float:
    """Detectable difference in points: quantiles of level and power times the user-clustered standard error."""
    users, n = len(asked), asked.sum()
    if users == 1:
        return math.nan
    residual = net - net.sum() / n * asked
    error = math.sqrt(users / (users - 1) * float((residual**2).sum())) / n
    return 100 * (_Z + _Z_POWER) * error if error > 0 else math.nan


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))
