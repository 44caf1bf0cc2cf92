"""Where the variance of a score comes from: seeds, users, questions, and what is left.

The model is y = mean + seed + user + question (of a user) + rest, all random, with every question asked in every seed.
Components are the ANOVA estimates (Searle, Casella and McCulloch 1992, chapter 5). Where users have equally many
questions they are those of REML as long as none would be negative. A negative estimate is taken as 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uqabench.errors import InputError


@dataclass(frozen=True)
class Variance:
    """Components of one answer's variance (in squared shares of 1), and of the score's: what other seeds, users and
    questions, as many as these, would vary by."""

    seed: float
    user: float
    question: float
    rest: float
    of_score: dict[str, float]

    def shares(self) -> dict[str, float]:
        """One answer's variance by source, in percent; all NaN where nothing varies."""
        parts = {"seeds": self.seed, "users": self.user, "questions": self.question, "rest": self.rest}
        total = sum(parts.values())
        return {name: 100 * part / total if total else float("nan") for name, part in parts.items()}

    def score_shares(self) -> dict[str, float]:
        """The score's variance by source, in percent."""
        total = sum(self.of_score.values())
        return {name: 100 * part / total if total else float("nan") for name, part in self.of_score.items()}


def variance_components(correct: np.ndarray, user: np.ndarray) -> Variance:
    """Components of right and wrong answers. correct: (S, Q), two seeds or more. user: (Q,), two users or more."""
    correct = np.asarray(correct, np.float64)
    _, user = np.unique(user, return_inverse=True)
    if correct.ndim != 2 or len(correct) < 2 or correct.shape[1] != len(user) or not len(user) or user.max() < 1:
        raise InputError("Variance components need the answers of two seeds or more to questions of two users or more.")
    seeds, n = correct.shape
    asked = np.bincount(user)
    users = len(asked)
    grand, of_question = correct.mean(), correct.mean(axis=0)
    of_seed, of_user = correct.mean(axis=1), np.bincount(user, weights=of_question) / asked
    seed_square = n * float(((of_seed - grand) ** 2).sum()) / (seeds - 1)
    user_square = seeds * float((asked * (of_user - grand) ** 2).sum()) / (users - 1)
    within = seeds * float(((of_question - of_user[user]) ** 2).sum())
    left = correct - of_seed[:, None] - of_question + grand
    rest = float((left**2).sum()) / ((seeds - 1) * (n - 1)) if n > 1 else 0.0
    question = max(0.0, (within / (n - users) - rest) / seeds) if n > users else 0.0
    typical = (n - float((asked**2).sum()) / n) / (users - 1)  # questions a user, as unequal numbers count
    found_user = max(0.0, (user_square - rest - seeds * question) / (seeds * typical))
    seed = max(0.0, (seed_square - rest) / n)
    of_score = {
        "seeds": seed / seeds,
        "users": found_user * float((asked**2).sum()) / n**2,
        "questions": question / n,
        "rest": rest / (n * seeds),
    }
    return Variance(seed, found_user, question, rest, of_score)
