"""What the compiled code reads (Context, Asked) and writes (Records)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from uqabench.questions.declaration import LONGEST_ANSWER, OPTIONS

ACCEPTED, MISSING, FEW, TIE, SAME, NOT_ENOUGH, SATURATED, NO_CHANGE, ORDER, TOO_RARE = range(10)
REASONS = (
    "accepted",
    "missing attribute",  # an item that the question needs lacks the attribute
    "too few values",  # the history has fewer values than the question needs
    "tie",  # several values are equally frequent where one is asked for
    "same answer twice",  # two of the four options would be the same
    "not enough wrong options",  # too few values match the right answer
    "history is cut off",  # the length of a history cut at N is N for everybody
    "no change too often",  # thinned: an unchanged interest may be the answer to one question in ten
    "order inside a basket",  # another order of items with one timestamp would have another answer
    "too rare for the balance",  # put off, and nothing of its kind fitted any more
)
"""Names of the outcomes of a candidate, by code."""


class Context(NamedTuple):
    """Read-only inputs. An attribute is its index in `declaration.ASKED`; in `flat` arrays value v of attribute a is
    element base[a] + v; T = base[4] values in all, P answers in the pools, F families that have a pool."""

    items: np.ndarray  # int32 (R,)
    starts: np.ndarray  # bool (R,): a basket begins
    offsets: np.ndarray  # int64 (U + 1,)
    codes: np.ndarray  # int32 (V, 4), -1: the item lacks it; codes with equal text are equal. An item's four lie
    # together, since a history is soon asked about for another attribute, too.
    asked: np.ndarray  # int64: attributes present
    side: np.ndarray  # int64: those of category, brand, shop present
    base: np.ndarray  # int64 (5,)
    popularity: np.ndarray  # int64 flat: interactions by training users
    following: np.ndarray  # int64 flat: how often training users took it next, where a history may be cut
    mass_bin: np.ndarray  # int8 flat: quartile of all interactions, from popular (0) to rare (3)
    order: np.ndarray  # int32 flat: an attribute's values by group, how often they come next, popularity
    rank: np.ndarray  # int64 flat: index of a value in `order`
    group_lo: np.ndarray  # int64 flat: a value's group is order[group_lo:group_hi]
    group_hi: np.ndarray
    pool_values: np.ndarray  # int32 (P, 3): right answers of training users, sorted within a pool, padded with -1
    pool_lengths: np.ndarray  # int8 (P,)
    pool_counts: np.ndarray  # int64 (P, 2): training histories with that answer, popularity of its values together
    pool_bounds: np.ndarray  # int64 (F, 4, 2): rows of (family, attribute)
    class_index: np.ndarray  # int64 (C,): rows of a pool, by class; see `pools`
    class_keys: np.ndarray  # int32 (C,)
    class_bounds: np.ndarray  # int64 (F, 4, 4, 3): start, start of the large classes, end for each classification
    single_keep: np.ndarray  # float64 (F, 4): the share of answers of one value that are kept
    times: np.ndarray  # int64 (R,) timestamps; empty: none
    train_users: np.ndarray  # int64 (U_train,)
    train_cuts: np.ndarray  # int64: rows at which histories of training users may be cut, user by user
    train_bounds: np.ndarray  # int64 (U_train + 1,): user train_users[i]'s are train_cuts[bounds[i]:bounds[i + 1]]
    period: int  # seconds: what lies this far apart at most is of the same period
    by_basket: bool  # the order inside a basket is no fact (version v2)
    n_history: int
    window: int
    min_history: int
    seed: np.uint64


class Asked(NamedTuple):
    """The history that a candidate is about: items[lo:hi] of `user`, cut at `cut`; items[hi] comes next.

    attribute: what is asked about, as the family draws it; -1: nothing, or the generator draws it. pool: index of the
    family's pool in the pool fields of `Context` (meaningless for a family without one). settled: int8 (4,), for each
    attribute the outcome that every candidate for this history has, ACCEPTED while none is known: a generator that
    finds no answer, whatever is drawn, writes why, and is not asked again.

    answers int32 (4, 3), lengths int8 (4,) and rows int64 (4,): the right answers of pooled families, as
    `pool.keep_answer` leaves them from one candidate for this history to the next; a length of 0: not looked for yet.
    rare bool (4,): whether the right answer is that of no history of the pool, while wrong options come from the pool.
    closed bool (4,): for each attribute whether nothing fits of which that is true; then such a candidate is put off.
    tallies: for `count_codes`.
    """

    user: int
    cut: int
    lo: int
    hi: int
    attribute: int
    pool: int
    settled: np.ndarray
    answers: np.ndarray
    lengths: np.ndarray
    rows: np.ndarray
    rare: np.ndarray
    closed: np.ndarray
    tallies: np.ndarray


class Records(NamedTuple):
    """M candidates. `values` holds each option's codes (or one count), padded with -1; `answer` is the index of the
    right option. `ranks` are the ranks (0..3) of the right answer when options are sorted by the two things that a
    guesser without a history would go by: how often each is right (counts: how large it is), and how popular. Within
    a `group`, all ranks are to be equally frequent."""

    kind: np.ndarray  # int16 (M,): index in the family's kinds
    attribute: np.ndarray  # int8, -1: none
    params: np.ndarray  # int32 (M, 4)
    values: np.ndarray  # int32 (M, 4, 3)
    lengths: np.ndarray  # int8 (M, 4)
    answer: np.ndarray  # int8
    ranks: np.ndarray  # int8 (M, 2)
    group: np.ndarray  # int16
    template: np.ndarray  # int16


def empty_records(size: int) -> Records:
    """Records of `size` candidates, filled with -1 (parameters with 0)."""
    return Records(
        kind=np.full(size, -1, np.int16),
        attribute=np.full(size, -1, np.int8),
        params=np.zeros((size, 4), np.int32),
        values=np.full((size, OPTIONS, LONGEST_ANSWER), -1, np.int32),
        lengths=np.ones((size, OPTIONS), np.int8),
        answer=np.full(size, -1, np.int8),
        ranks=np.full((size, 2), -1, np.int8),
        group=np.zeros(size, np.int16),
        template=np.zeros(size, np.int16),
    )


def no_tallies(values: int) -> np.ndarray:
    """What `histories.count_codes` counts codes below `values` in."""
    return np.zeros(values + 1, np.int32)
