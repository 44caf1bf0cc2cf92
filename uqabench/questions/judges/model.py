"""The two judges: gradient-boosted trees over option rows, one model a sub-task, fitted on training questions."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from uqabench.data.store import InteractionStore
from uqabench.questions.declaration import OPTIONS
from uqabench.questions.judges.history_features import history_features
from uqabench.questions.judges.option_features import Features, ValueFacts, option_features
from uqabench.questions.questions import QuestionSet
from uqabench.vocabulary import JUDGES, SUBTASKS

log = logging.getLogger("uqabench")

_, HISTORY_MODEL = JUDGES

FEWEST = 12
"""Training questions that a sub-task's model needs; below, the judge takes the first option."""

SETTINGS: dict[str, Any] = {
    "max_iter": 80,
    "learning_rate": 0.08,
    "max_leaf_nodes": 6,
    "min_samples_leaf": 20,
    "l2_regularization": 5.0,
    "early_stopping": False,
}


def predict_judge(
    name: str, questions: QuestionSet, store: InteractionStore, train: QuestionSet, seed: int = 0
) -> np.ndarray:
    """int8 (Q,), the option that the judge `name` of JUDGES takes; of equally good ones the first."""
    return judge_scores(name, questions, store, train, seed).argmax(axis=1).astype(np.int8)


def judge_scores(
    name: str, questions: QuestionSet, store: InteractionStore, train: QuestionSet, seed: int = 0
) -> np.ndarray:
    """float64 (Q, 4): log odds that each option is right, by a model of the sub-task that knows `train`'s answers.

    The answers of `questions` are not read. Rows of sub-tasks with fewer than FEWEST training questions are zero, and
    the log says so.
    """
    facts = ValueFacts(store, questions.by_basket)

    def features(asked: QuestionSet) -> Features:
        own = option_features(asked, train, facts)
        return own | history_features(asked, store, facts) if name == HISTORY_MODEL else own

    scores = np.zeros((len(questions), OPTIONS))
    known, wanted = _matrix(features(train)), _matrix(features(questions))
    right = np.arange(OPTIONS) == train.answer[:, None]
    for subtask in np.unique(questions.subtask):
        rows, asked = train.subtask == subtask, questions.subtask == subtask
        if rows.sum() < FEWEST:
            log.warning(
                "%s: %d training questions of %s are too few to learn from, so it takes the first option there.",
                name, rows.sum(), SUBTASKS[subtask],
            )  # fmt: skip
            continue
        x = known[rows].reshape(-1, known.shape[2])
        varies = _varies(x)
        model = HistGradientBoostingClassifier(**SETTINGS, random_state=seed)
        model.fit(x[:, varies], right[rows].ravel())
        scores[asked] = model.decision_function(wanted[asked].reshape(-1, x.shape[1])[:, varies]).reshape(-1, OPTIONS)
    return scores


def _matrix(features: Features) -> np.ndarray:
    """float32 (Q, 4, 3 · F): each feature, by how much it exceeds the best other option's, and its rank among the four
    (how many have less)."""
    values = np.stack(list(features.values()), axis=2).astype(np.float32)
    filled = np.where(np.isnan(values), -np.inf, values)
    ordered = np.sort(filled, axis=1)
    largest, second = ordered[:, -1:], ordered[:, -2:-1]
    with np.errstate(invalid="ignore"):
        ahead = filled - np.where(filled == largest, second, largest)
    ahead = np.where(np.isfinite(ahead), ahead, np.nan)
    rank = (filled[:, :, None] > filled[:, None]).sum(axis=2).astype(np.float32)
    return np.concatenate([values, ahead, rank], axis=2)


def _varies(x: np.ndarray) -> np.ndarray:
    """bool (F,): columns of x (n, F) that are not the same in all rows."""
    first = x[:1]
    return ((x != first) & ~(np.isnan(x) & np.isnan(first))).any(axis=0)
