"""What a probe learns to tell from a vector: how often each attribute value stands in windows of the history."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from uqabench.data.store import InteractionStore
from uqabench.questions.declaration import ASKED
from uqabench.questions.tables import basket_starts, equal_texts
from uqabench.stages.states import HistoryPairs

LAST = (64, 32, 16, 8, 4, 1)
WINDOWS = (
    "all", *(f"last {n}" for n in LAST), "last 10", "item 2 back", "item 3 back", "first third", "middle third",
    "last third", "basket 1 back", "basket 2 back", "basket 3 back",
)  # fmt: skip
"""Windows of a history; "item 2 back" is the last but one."""
INDEX = {name: index for index, name in enumerate(WINDOWS)}
SKETCH = 8
"""Random projections of each window's labels on which the ridge penalty is chosen."""


@dataclass(frozen=True)
class AttributeLabels:
    """log(1 + count) of an attribute's values in n histories' windows, as entries sorted by value, then history.

    bounds int64 (values + 1,): entries of value v are bounds[v]:bounds[v + 1]. history int32 (E,), label float32
    (E, len(WINDOWS)).
    """

    bounds: np.ndarray
    history: np.ndarray
    label: np.ndarray

    def sums(self, fold: np.ndarray, folds: int) -> np.ndarray:
        """float32 (folds, values, len(WINDOWS)): labels summed over the histories of each fold (n,)."""
        values = len(self.bounds) - 1
        place = fold[self.history] * values + np.repeat(np.arange(values), np.diff(self.bounds))
        chosen = csr_matrix(
            (np.ones(len(place), np.float32), place, np.arange(len(place) + 1)), shape=(len(place), folds * values)
        )
        return np.asarray(chosen.T @ self.label).reshape(folds, values, -1)

    def sketch(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """float64 (n, len(WINDOWS), SKETCH): random projections over values, of about one size for each window."""
        values = len(self.bounds) - 1
        out = np.zeros((n, len(WINDOWS), SKETCH))
        for window in range(len(WINDOWS)):
            column = self.label[:, window].astype(np.float64)
            size = np.sqrt(np.square(column).sum() / n) or 1.0
            labels = csr_matrix((column / size, self.history, self.bounds), shape=(values, n))
            out[:, window] = labels.T @ rng.standard_normal((values, SKETCH))
        return out


def window_labels(store: InteractionStore, pairs: HistoryPairs) -> list[AttributeLabels]:
    """Labels of the histories of `pairs` (n), an entry of the list for each of ASKED."""
    lengths = pairs.lengths
    owner = np.repeat(np.arange(len(pairs)), lengths)
    ends = np.cumsum(lengths)
    place = np.arange(len(owner)) - np.repeat(ends - lengths, lengths)
    rows = np.repeat(store.offsets[pairs.users] + pairs.starts, lengths) + place
    inside = _inside(basket_starts(store)[rows], owner, place, lengths)
    items = store.items[rows]
    return [_labels_of(codes[items], owner, inside) for codes in equal_texts(store.catalogue)]


def _inside(starts: np.ndarray, owner: np.ndarray, place: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """bool (items of all histories, len(WINDOWS)): which windows an item is in."""
    length = lengths[owner]
    back = length - 1 - place
    basket = np.cumsum(starts | (place == 0))
    baskets_back = basket[np.cumsum(lengths) - 1][owner] - basket
    return np.stack(
        [
            np.ones(len(owner), bool),
            *(back < n for n in LAST),
            back < 10,
            back == 1,
            back == 2,
            place < length // 3,
            (place >= length // 3) & (place < 2 * length // 3),
            place >= 2 * length // 3,
            *(baskets_back == n for n in range(3)),
        ],
        axis=1,
    )


def _labels_of(codes: np.ndarray, owner: np.ndarray, inside: np.ndarray) -> AttributeLabels:
    values = max(1, int(codes.max(initial=0)) + 1)
    known = np.flatnonzero(codes >= 0)
    order = known[np.lexsort((owner[known], codes[known]))]
    if not len(order):
        empty = np.zeros((0, len(WINDOWS)), np.float32)
        return AttributeLabels(np.zeros(values + 1, np.int64), np.empty(0, np.int32), empty)
    code, history = codes[order], owner[order]
    first = np.flatnonzero(np.append(True, (np.diff(code) != 0) | (np.diff(history) != 0)))
    counts = np.add.reduceat(inside[order].astype(np.float32), first, axis=0)
    bounds = np.searchsorted(code[first], np.arange(values + 1))
    return AttributeLabels(bounds.astype(np.int64), history[first].astype(np.int32), np.log1p(counts))


__all__ = ["ASKED", "INDEX", "WINDOWS", "AttributeLabels", "window_labels"]
