"""What generation knows about attribute values before any question: equal texts, popularity, neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uqabench.data.arrow import Texts
from uqabench.data.catalogue import Catalogue
from uqabench.data.store import SPLITS, InteractionStore
from uqabench.questions.core.entries import count_next_items
from uqabench.questions.declaration import ASKED

_BLANKS = r"[\t-\r\x1c-\x1f ]+"
"""White space among ASCII, as `str.split` has it."""


class Values(NamedTuple):
    """Facts of every value, flat over the asked attributes: value v of attribute a is element base[a] + v (see
    `Context`)."""

    base: np.ndarray
    popularity: np.ndarray
    following: np.ndarray
    mass_bin: np.ndarray
    order: np.ndarray
    rank: np.ndarray
    group_lo: np.ndarray
    group_hi: np.ndarray


def equal_texts(catalogue: Catalogue, executor: Executor | None = None) -> np.ndarray:
    """int32 (4, V): codes of ASKED by item in which values with the same text share one code, -1 where none is known.

    Two texts are the same if they differ in case or spacing only: a reader could not tell such options apart. A blank
    text counts as none. executor: works on several attributes at a time.
    """
    codes = np.full((len(ASKED), len(catalogue)), -1, np.int32)

    def fill(row: int) -> None:
        texts = catalogue.values.get(ASKED[row], [])
        if texts:
            own = catalogue.codes[ASKED[row]]
            codes[row] = np.where(own >= 0, _first_of_equals(texts)[own], -1)

    list((map if executor is None else executor.map)(fill, range(len(ASKED))))
    return codes


def _first_of_equals(texts: Sequence[str]) -> np.ndarray:
    """int32: for each text the place of the first one that is the same, -1 where it is blank."""
    column = texts.arrow() if isinstance(texts, Texts) else pa.array(texts, pa.string())
    if pc.all(pc.string_is_ascii(column)).as_py():  # the same as below, by Arrow
        column = pc.ascii_lower(pc.ascii_trim(pc.replace_substring_regex(column, _BLANKS, " "), " "))
    else:
        column = pa.array([" ".join(text.split()).casefold() for text in texts], pa.string())
    encoded = pc.dictionary_encode(column)
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    first = np.full(len(encoded.dictionary), len(codes), np.int64)
    np.minimum.at(first, codes, np.arange(len(codes)))
    first[pc.equal(encoded.dictionary, "").to_numpy(zero_copy_only=False)] = -1
    return first[codes].astype(np.int32)


def basket_starts(store: InteractionStore) -> np.ndarray:
    """bool (R,): where a user's basket (a new timestamp) begins; everywhere without timestamps."""
    starts = np.ones(len(store.items), bool)
    if store.timestamps is not None:
        starts[1:] = store.timestamps[1:] != store.timestamps[:-1]
        first_rows = store.offsets[:-1]
        starts[first_rows[first_rows < len(starts)]] = True
    return starts


def no_values() -> Values:
    """Of no value at all."""
    kinds = (np.int64, np.int64, np.int8, np.int32, np.int64, np.int64, np.int64)
    return Values(np.zeros(len(ASKED) + 1, np.int64), *(np.zeros(0, kind) for kind in kinds))


def build_values(
    store: InteractionStore, codes: np.ndarray, starts: np.ndarray, min_history: int, by_basket: bool
) -> Values:
    """Popularity and order of all values, from training users alone; `by_basket`: every item of a next basket counts as
    taken next, not its first one alone."""
    catalogue = store.catalogue
    following = count_next_items(
        store.items, starts, store.offsets, store.users("train"), min_history, len(catalogue), by_basket
    ).astype(np.float64)
    sizes = [len(catalogue.values.get(attribute, [])) for attribute in ASKED]
    base = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    values = Values(
        base,
        *(np.zeros(base[-1], kind) for kind in (np.int64, np.int64, np.int8, np.int32, np.int64, np.int64, np.int64)),
    )
    for row, size in enumerate(sizes):
        known = codes[row] >= 0
        own, span = codes[row][known], slice(base[row], base[row + 1])
        popularity = np.bincount(own, weights=catalogue.popularity[known], minlength=size).astype(np.int64)
        comes_next = np.bincount(own, weights=following[known], minlength=size).astype(np.int64)
        group = _title_groups(codes, catalogue.popularity, size) if row == 0 else np.zeros(size, np.int64)
        occurs = np.bincount(own, minlength=size) > 0
        group[~occurs] = -2  # spellings of other values, and values without items: nobody's neighbours
        order = np.lexsort((np.arange(size), popularity, comes_next, group))
        values.popularity[span] = popularity
        values.following[span] = comes_next
        values.order[span] = order
        values.rank[base[row] + order] = base[row] + np.arange(size)
        values.group_lo[span] = base[row] + np.searchsorted(group[order], group, side="left")
        values.group_hi[span] = base[row] + np.searchsorted(group[order], group, side="right")
        values.mass_bin[span] = _mass_quartile(popularity)
    return values


class TrainCuts(NamedTuple):
    """The fields of `Context` that say when training users took what; empty where a version does not use them."""

    times: np.ndarray
    train_users: np.ndarray
    train_cuts: np.ndarray
    train_bounds: np.ndarray
    period: int


def no_cuts() -> TrainCuts:
    """Nothing about training users."""
    empty = np.empty(0, np.int64)
    return TrainCuts(empty, empty, empty, np.zeros(1, np.int64), 0)


def find_cuts(store: InteractionStore, starts: np.ndarray, min_history: int) -> TrainCuts:
    """Where the histories of training users may be cut. A period is a tenth of the log's time: a twentieth before and
    after."""
    lengths = store.lengths
    may_cut = starts & np.repeat(store.split == SPLITS.index("train"), lengths)
    early = np.minimum(lengths, min_history)
    before = np.cumsum(early) - early
    may_cut[np.repeat(store.offsets[:-1] - before, early) + np.arange(early.sum())] = False
    flat = np.flatnonzero(may_cut).astype(np.int64)
    bounds = np.searchsorted(flat, store.offsets)
    users = np.flatnonzero(np.diff(bounds))
    if not len(users):
        return no_cuts()
    times = np.empty(0, np.int64) if store.timestamps is None else np.asarray(store.timestamps, np.int64)
    period = int(times.max() - times.min()) // 20 if len(times) else 0
    return TrainCuts(times, users.astype(np.int64), flat, np.r_[0, bounds[users + 1]].astype(np.int64), period)


def _title_groups(codes: np.ndarray, popularity: np.ndarray, size: int) -> np.ndarray:
    """int64 (size,): a title's category, that of its most popular item; -1 where none is known."""
    group = np.full(size, -1, np.int64)
    ascending = np.argsort(popularity, kind="stable")
    titles, categories = codes[0][ascending], codes[1][ascending]
    known = titles >= 0
    group[titles[known]] = categories[known]  # the most popular is written last, and stays
    return group


def _mass_quartile(popularity: np.ndarray) -> np.ndarray:
    """int8: 0 for the popular values that take the first quarter of all interactions, … 3 for the rarest."""
    descending = np.argsort(-popularity, kind="stable")
    before = np.cumsum(popularity[descending]) - popularity[descending]
    quartile = np.empty(len(popularity), np.int8)
    quartile[descending] = np.minimum(3, 4 * before // max(1, int(popularity.sum())))
    return quartile
