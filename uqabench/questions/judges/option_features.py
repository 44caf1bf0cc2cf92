"""What options and question say by themselves, with what is known of all training users.

All arrays are float64 (Q, 4) for one feature, NaN where it does not apply. How often an option is right is counted over
the questions of other users: a training question's own answer, or another one about its user, is no part of it.
"""

from __future__ import annotations

import numpy as np

from uqabench.data.store import InteractionStore
from uqabench.questions.core.entries import count_next_items
from uqabench.questions.declaration import ASKED, LONGEST_ANSWER, OPTIONS
from uqabench.questions.kinds import KIND_INDEX, KINDS
from uqabench.questions.questions import QuestionSet
from uqabench.questions.tables import basket_starts, equal_texts

Features = dict[str, np.ndarray]

FOLDS = 10
"""Parts of the training users for counting right answers: a user's questions get those of the other parts."""
IS_COUNT = np.array([kind.counts for kind in KINDS], bool)
_LEVELS = sorted({kind.level for kind in KINDS})
_LEVEL = np.array([_LEVELS.index(kind.level) for kind in KINDS], float)
_COUNTS_A_VALUE = KIND_INDEX["mf_count"]


class ValueFacts:
    """Of every value of the asked attributes, over training users: interactions, how often it is taken next, its text.

    tables: name → one array a row of ASKED, indexed by the value's code.
    """

    def __init__(self, store: InteractionStore, by_basket: bool) -> None:
        catalogue = store.catalogue
        following = count_next_items(
            store.items, basket_starts(store), store.offsets, store.users("train"), 1, len(catalogue), by_basket
        )
        self.codes = equal_texts(catalogue)
        of_items = {"popularity": catalogue.popularity, "following": following}
        self.tables: dict[str, list[np.ndarray]] = {name: [] for name in (*of_items, "characters")}
        for codes, attribute in zip(self.codes, ASKED, strict=True):
            texts = catalogue.values.get(attribute, [])
            known = codes >= 0
            for name, counts in of_items.items():
                summed = np.bincount(codes[known], weights=counts[known], minlength=max(1, len(texts)))
                self.tables[name].append(np.log1p(summed))
            self.tables["characters"].append(np.array([len(text) for text in texts] or [0], float))

    def of(self, name: str, attribute: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Facts (…) of values (…) of the attributes (Q,), NaN where the value is -1 or there is no attribute."""
        out = np.full(values.shape, np.nan)
        for row, table in enumerate(self.tables[name]):
            asked = (attribute == row).reshape(-1, *[1] * (values.ndim - 1)) & (values >= 0)
            out[asked] = table[values[asked]]
        return out


def option_features(questions: QuestionSet, train: QuestionSet, facts: ValueFacts) -> Features:
    """Features (Q, 4) of options and question; `train`: whose right answers count, which may be `questions` itself."""
    values = np.where(IS_COUNT[questions.kind][:, None, None], -1, questions.option_values)
    numbers = np.where(IS_COUNT[questions.kind][:, None], questions.option_values[:, :, 0], np.nan).astype(float)
    attribute = questions.attribute.astype(int)
    features: Features = {"number": numbers, "length": questions.option_lengths.astype(float)}
    for name in facts.tables:
        of_values = facts.of(name, attribute, values)
        features[f"{name} sum"] = _nan_sum(of_values)
        features[f"{name} first"] = of_values[:, :, 0]
    features |= _likeness(values, questions.option_lengths, facts, attribute)
    features |= right_rates(questions, train)
    asked = {
        "attribute": attribute.astype(float),
        "kind": questions.kind.astype(float),
        "level": _LEVEL[questions.kind],
        "parameter": questions.params[:, 0].astype(float),
        "target": facts.of(
            "popularity", attribute, np.where(questions.kind == _COUNTS_A_VALUE, questions.params[:, 0], -1)
        ),
    }
    return features | {name: np.repeat(column[:, None], OPTIONS, axis=1) for name, column in asked.items()}


def _nan_sum(values: np.ndarray) -> np.ndarray:
    """Sum over the last axis; NaN where all are."""
    return np.where(np.isnan(values).all(axis=-1), np.nan, np.nansum(values, axis=-1))


def _likeness(values: np.ndarray, lengths: np.ndarray, facts: ValueFacts, attribute: np.ndarray) -> Features:
    """How much of each option the other three share: an answer from which wrong options were made is like them all."""
    last = np.take_along_axis(values, np.maximum(lengths.astype(int) - 1, 0)[:, :, None], axis=2)[:, :, 0]
    shared = (values[:, :, None, :, None] == values[:, None, :, None, :]) & (values[:, :, None, :, None] >= 0)
    category = np.full(values.shape[:2], -1)
    titles = attribute == 0
    category[titles] = title_relatives(facts.codes)[0][values[titles, :, 0]]
    return {
        "shared values": shared.any(axis=4).sum(axis=(2, 3)).astype(float),
        "shared first": _equal_others(values[:, :, 0]),
        "shared last": _equal_others(last),
        "shared category": _equal_others(category),
    }


def _equal_others(codes: np.ndarray) -> np.ndarray:
    """float64 (Q, 4): how many of the other options have the same code; -1 equals nothing."""
    equal = (codes[:, :, None] == codes[:, None, :]) & (codes[:, :, None] >= 0)
    return np.maximum(equal.sum(axis=2) - 1, 0).astype(float)


def title_relatives(codes: np.ndarray) -> np.ndarray:
    """int32 (3, titles): category, brand and shop of a title, those of its first item; -1 where unknown."""
    titles = codes[0]
    known = titles >= 0
    out = np.full((len(ASKED) - 1, max(1, int(titles.max(initial=0)) + 1)), -1, np.int32)
    for row in range(1, len(ASKED)):
        out[row - 1, titles[known][::-1]] = codes[row][known][::-1]
    return out


def right_rates(questions: QuestionSet, train: QuestionSet) -> Features:
    """How often each option (Q, 4), and its first value, is shown and is right in questions of the same sub-task and
    attribute about other users."""
    users, part = _parts(train.user)
    place = np.minimum(np.searchsorted(users, questions.user), len(users) - 1)
    own = np.where(users[place] == questions.user, part[place], -1)
    features: Features = {}
    for name, values in (("", LONGEST_ANSWER), (" first", 1)):
        keys, asked_keys = _keys(train, values), _keys(questions, values)
        unique, index = np.unique(np.concatenate([keys, asked_keys]), axis=0, return_inverse=True)
        index = index.ravel()
        trained = index[: len(keys)]
        fold = np.repeat(part[np.searchsorted(users, train.user)], OPTIONS)
        right = (np.arange(OPTIONS) == train.answer[:, None]).ravel()
        shown_by_fold, right_by_fold = np.zeros((2, len(unique), FOLDS))
        np.add.at(shown_by_fold, (trained, fold), 1)
        np.add.at(right_by_fold, (trained, fold), right)
        asked = index[len(keys) :].reshape(-1, OPTIONS)
        shown, hits = shown_by_fold.sum(axis=1)[asked], right_by_fold.sum(axis=1)[asked]
        inside = own >= 0
        shown[inside] -= shown_by_fold[asked[inside], own[inside, None]]
        hits[inside] -= right_by_fold[asked[inside], own[inside, None]]
        features[f"shown{name}"] = np.log1p(shown)
        features[f"right{name}"] = np.log1p(hits)
        features[f"rate{name}"] = (hits + 1) / (shown + OPTIONS)
    return features


def _parts(users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distinct users ascending, the part that each belongs to)."""
    distinct = np.unique(users)
    return distinct, np.arange(len(distinct)) % FOLDS


def _keys(questions: QuestionSet, values: int) -> np.ndarray:
    """int64 (Q · 4, 2 + values): what makes two options the same one."""
    group = np.where(IS_COUNT[questions.kind], 1000 + questions.kind, questions.subtask)
    asked = np.repeat(np.stack([group, questions.attribute], axis=1).astype(np.int64), OPTIONS, axis=0)
    return np.concatenate([asked, questions.option_values[:, :, :values].reshape(-1, values)], axis=1)
