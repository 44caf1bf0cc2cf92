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
from uqabench.questions.core.entries import count_next_items
from uqabench.questions.declaration import ASKED, OPTIONS, Evidence
from uqabench.questions.kinds import KINDS
from uqabench.questions.questions import QuestionSet
from uqabench.questions.render import history_items
from uqabench.questions.tables import basket_starts, equal_texts
from uqabench.vocabulary import GIVEN_BASELINES, JUDGES

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
    return _most_frequent_option(questions, store, train_questions, store.catalogue.popularity)


def predict_most_often_next(
    questions: QuestionSet, store: InteractionStore, train_questions: QuestionSet
) -> np.ndarray:
    """The option that training users most often took next (lists: in sum); counts go by training.

    What is taken next is a basket after a user's first: in v1, as its questions have it, the item stored first in it.
    """
    starts = basket_starts(store)
    next_items = count_next_items(
        store.items, starts, store.offsets, store.users("train"), 1, len(store.catalogue), questions.by_basket
    )
    return _most_frequent_option(questions, store, train_questions, next_items)


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
        right = right_options(questions, store, i)
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
    "most-often-next": predict_most_often_next,
    "seen-option": predict_seen_option,
    "oracle": predict_oracle,
}

SEEDED = ("uniform", "seen-option")
"""Baselines that draw."""


def predict(
    name: str, questions: QuestionSet, store: InteractionStore, train_questions: QuestionSet, seed: int = UNIFORM_SEED
) -> np.ndarray:
    """int8 (Q,), indices of the options that the baseline called `name` takes; `seed` serves those that draw."""
    store = store.about(questions.split)
    if name not in (*BASELINES, *JUDGES):
        raise InputError(f"There is no baseline '{name}': choose from {', '.join((*BASELINES, *JUDGES))}.")
    if questions.texts is not None:
        return _predict_given(name, questions, store, train_questions, seed)
    if name in JUDGES:
        from uqabench.questions.judges import predict_judge  # scikit-learn takes a second to import

        return predict_judge(name, questions, store, train_questions, seed)
    if name in SEEDED:
        return BASELINES[name](questions, store, train_questions, seed)
    return BASELINES[name](questions, store, train_questions)


def _predict_given(
    name: str, questions: QuestionSet, store: InteractionStore, train_questions: QuestionSet, seed: int
) -> np.ndarray:
    check_answerable(name)
    if name == "uniform":
        return predict_uniform(questions, store, train_questions, seed)
    letters = np.zeros(int(max(questions.subtask, default=0)) + 1, np.int8)
    for subtask in np.unique(train_questions.subtask):
        answers = train_questions.answer[train_questions.subtask == subtask]
        if subtask < len(letters):
            letters[subtask] = np.bincount(answers, minlength=OPTIONS).argmax()
    return letters[questions.subtask]


def check_answerable(name: str) -> None:
    """InputError where a baseline needs options' values: questions that came with the data hold them as words only."""
    if name not in GIVEN_BASELINES:
        raise InputError(
            f"The baseline '{name}' compares options' values, and questions that came with the data are words: choose "
            f"{', '.join(GIVEN_BASELINES)}, no-history or shuffled."
        )


def right_options(questions: QuestionSet, store: InteractionStore, i: int) -> list[int]:
    """Indices of the options of question i that are right by the kind's own rule: one, if the question is sound."""
    truths = right_answers(questions, store, i)
    attribute = int(questions.attribute[i])
    is_count = KINDS[questions.kind[i]].counts
    shown = [
        list(option) if is_count else [_text(store, attribute, code) for code in option]
        for option in questions.options(i)
    ]
    return [index for index, option in enumerate(shown) if option in truths]


def right_answers(questions: QuestionSet, store: InteractionStore, i: int) -> list[list[Any]]:
    """All right answers to question i, as normalised texts (or one count), sharing no code with generation."""
    attribute, user, cut = int(questions.attribute[i]), int(questions.user[i]), int(questions.cut[i])
    sequence, starts = store.sequence(user), store.basket_starts(user)

    def texts(items: np.ndarray) -> list[str | None]:
        return [_item_text(store, attribute, int(item)) if attribute >= 0 else None for item in items]

    first = max(0, cut - questions.n_history)
    bounds = [first, *(np.flatnonzero(starts[first + 1 : cut]) + first + 1).tolist(), cut]
    next_start = np.flatnonzero(starts[cut + 1 :])
    end = cut + 1 + int(next_start[0]) if len(next_start) else len(sequence)
    history = texts(sequence[first:cut])
    evidence = Evidence(
        texts=history,
        baskets=[history[a - first : b - first] for a, b in zip(bounds[:-1], bounds[1:], strict=True)],
        following=texts(sequence[cut:end]),
        params=questions.parameters(i),
        text=lambda code: _text(store, attribute, code),
    )
    return KINDS[questions.kind[i]].answers(evidence)


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


def _most_frequent_option(
    questions: QuestionSet, store: InteractionStore, train_questions: QuestionSet, of_items: np.ndarray
) -> np.ndarray:
    """The option whose items have the highest counts `of_items` (V,) in sum; counts: by their training frequency."""
    of_values = []
    for codes, attribute in zip(equal_texts(store.catalogue), ASKED, strict=True):
        known = codes >= 0
        size = len(store.catalogue.values.get(attribute, []))
        of_values.append(np.bincount(codes[known], weights=of_items[known], minlength=size))
    frequency = _answer_frequencies(train_questions)

    def score(i: int, option: tuple[int, ...]) -> float:
        if KINDS[questions.kind[i]].counts:
            return frequency[_asked(questions, i)][option]
        return sum(of_values[questions.attribute[i]][code] for code in option)

    return _best(questions, score)


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
