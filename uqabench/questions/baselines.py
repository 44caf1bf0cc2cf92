"""What can be scored without a model: baselines that look for short cuts, and the oracle.

Each `predict_*` answers a question set with int8 (Q,), the index 0..3 of the option it takes, and has the arguments
`(questions, store, train_questions)`, whether it needs them or not. Of equally good options it takes the first one:
letters are uniform, so that is a fair draw.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from uqabench.data.catalogue import ATTRIBUTES
from uqabench.data.store import InteractionStore
from uqabench.errors import InputError, RunError
from uqabench.questions.declaration import ASKED, OPTIONS, Evidence
from uqabench.questions.kinds import KINDS
from uqabench.questions.questions import QuestionSet
from uqabench.questions.render import history_items
from uqabench.questions.tables import equal_texts

UNIFORM_SEED = 20250219


def predict_uniform(
    questions: QuestionSet, store: InteractionStore, train_questions: QuestionSet, seed: int = UNIFORM_SEED
) -> np.ndarray:
    """Any option, each with probability 1/4."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 0]))
    return rng.integers(0, OPTIONS, len(questions)).astype(np.int8)


def predict_majority(questions: QuestionSet, store: InteractionStore, train_questions: QuestionSet) -> np.ndarray:
    """The option that was most often the right answer to training questions of the same kind and attribute."""
    frequency = _answer_frequencies(train_questions)
    return _best(questions, lambda i, option: frequency[_asked(questions, i)][option])


def predict_popularity(questions: QuestionSet, store: InteractionStore, train_questions: QuestionSet) -> np.ndarray:
    """The option with the most interactions by training users (lists: in sum); counts have none and go by training."""
    popularity = []
    for codes, attribute in zip(equal_texts(store.catalogue), ASKED, strict=True):
        known = codes >= 0
        size = len(store.catalogue.values.get(attribute, []))
        popularity.append(np.bincount(codes[known], weights=store.catalogue.popularity[known], minlength=size))
    frequency = _answer_frequencies(train_questions)

    def score(i: int, option: tuple[int, ...]) -> float:
        if KINDS[questions.kind[i]].counts:
            return frequency[_asked(questions, i)][option]
        return sum(popularity[questions.attribute[i]][code] for code in option)

    return _best(questions, score)


def predict_seen_option(
    questions: QuestionSet, store: InteractionStore, train_questions: QuestionSet, seed: int = UNIFORM_SEED
) -> np.ndarray:
    """The option that occurs most in the history (lists: in sum); counts occur nowhere and are drawn uniformly."""
    guesses = predict_uniform(questions, store, train_questions, seed)
    codes = equal_texts(store.catalogue)
    counts: dict[tuple[int, int, int], Counter[int]] = {}

    def score(i: int, option: tuple[int, ...]) -> float:
        attribute = int(questions.attribute[i])
        key = (int(questions.user[i]), int(questions.cut[i]), attribute)
        if key not in counts:
            counts[key] = Counter(codes[attribute][_history(questions, store, i)].tolist())
        return sum(counts[key][code] for code in option)

    countless = np.array([KINDS[kind].counts for kind in questions.kind], bool)
    guesses[~countless] = _best(questions.select(~countless), _shifted(score, np.flatnonzero(~countless)))
    return guesses


def predict_oracle(questions: QuestionSet, store: InteractionStore, train_questions: QuestionSet) -> np.ndarray:
    """The right answer, worked out anew from the texts of h (and of s[cut] for ip and ap); it must score 100.

    Raises RunError naming the question for which no option or several are right: set and store do not belong together.
    """
    guesses = np.empty(len(questions), np.int8)
    for i in range(len(questions)):
        truth = true_answer(questions, store, i)
        attribute = int(questions.attribute[i])
        is_count = KINDS[questions.kind[i]].counts
        right = [
            index
            for index, option in enumerate(questions.options(i))
            if truth == (list(option) if is_count else [_text(store, attribute, code) for code in option])
        ]
        if len(right) != 1:
            raise RunError(
                f"Question {i} has {len(right)} right options: these questions were not made from this store."
            )
        guesses[i] = right[0]
    return guesses


BASELINES: dict[str, Callable[..., np.ndarray]] = {
    "uniform": predict_uniform,
    "majority": predict_majority,
    "popularity": predict_popularity,
    "seen-option": predict_seen_option,
    "oracle": predict_oracle,
}


def predict(
    name: str, questions: QuestionSet, store: InteractionStore, train_questions: QuestionSet, seed: int = UNIFORM_SEED
) -> np.ndarray:
    """int8 (Q,), indices of the options that the baseline called `name` takes; `seed` serves those that draw."""
    if name not in BASELINES:
        raise InputError(f"There is no baseline '{name}': choose from {', '.join(BASELINES)}.")
    if name in ("uniform", "seen-option"):
        return BASELINES[name](questions, store, train_questions, seed)
    return BASELINES[name](questions, store, train_questions)


def true_answer(questions: QuestionSet, store: InteractionStore, i: int) -> list[Any] | None:
    """Answer of question i as normalised texts (or one count) by the kind's own rule, sharing no code with generation.

    None where the question has no single answer.
    """
    attribute = int(questions.attribute[i])

    def texts(items: np.ndarray) -> list[str | None]:
        return [_item_text(store, attribute, int(item)) if attribute >= 0 else None for item in items]

    evidence = Evidence(
        texts=texts(_history(questions, store, i)),
        following=texts(store.sequence(int(questions.user[i]))[int(questions.cut[i]) :][:1]),
        params=questions.parameters(i),
        text=lambda code: _text(store, attribute, code),
    )
    return KINDS[questions.kind[i]].answer(evidence)


def _item_text(store: InteractionStore, attribute: int, item: int) -> str | None:
    code = int(store.catalogue.codes[ATTRIBUTES[attribute]][item])
    return None if code < 0 else _text(store, attribute, code)


def _text(store: InteractionStore, attribute: int, code: int) -> str | None:
    """As a reader compares it: case and spacing do not count; blank is nothing."""
    return " ".join(store.catalogue.text(ATTRIBUTES[attribute], code).casefold().split()) or None


def _history(questions: QuestionSet, store: InteractionStore, i: int) -> np.ndarray:
    return history_items(store, int(questions.user[i]), int(questions.cut[i]), questions.n_history)


def _asked(questions: QuestionSet, i: int) -> tuple[int, int]:
    return int(questions.kind[i]), int(questions.attribute[i])


def _answer_frequencies(questions: QuestionSet) -> dict[tuple[int, int], Counter[tuple[int, ...]]]:
    frequency: dict[tuple[int, int], Counter[tuple[int, ...]]] = defaultdict(Counter)
    for i in range(len(questions)):
        frequency[_asked(questions, i)][questions.option(i, int(questions.answer[i]))] += 1
    return frequency


def _shifted(score: Callable[[int, tuple[int, ...]], float], rows: np.ndarray) -> Callable[..., float]:
    return lambda i, option: score(int(rows[i]), option)


def _best(questions: QuestionSet, score: Callable[[int, tuple[int, ...]], float]) -> np.ndarray:
    """The first option with the highest score(question, option)."""
    scores = [[score(i, option) for option in questions.options(i)] for i in range(len(questions))]
    return np.array(scores, float).reshape(-1, OPTIONS).argmax(axis=1).astype(np.int8)
