"""df, direct features: which value an item at a stated position of the history has.

In v2 an item has a position only where every order inside its basket puts the same value there; beside that, values of
whole baskets are asked about.
"""

from __future__ import annotations

import numpy as np

from uqabench.questions.core.attributes import any_attribute
from uqabench.questions.core.compiled import inner
from uqabench.questions.core.context import ACCEPTED, FEW, MISSING, ORDER, SAME
from uqabench.questions.core.histories import (
    basket_bounds,
    basket_ends,
    gather,
    holds,
    occurrences,
    same_in_any_order,
)
from uqabench.questions.core.options import any_equal, finish, option_sums, rank_of_first
from uqabench.questions.core.rng import below, chance
from uqabench.questions.declaration import ASKED, OPTIONS, Family, Kind, Word, needs

NEAR = 8
"""In half of the questions wrong options come from the eight positions nearest to the one asked about."""
LATEST_NTH = 10
MAX_K = 3
BASKET_SHARE = 0.6
"""Share of the attempts of v2 that ask about a whole basket, where the history has baskets of several items."""


def _ordinal_suffix(n: int) -> str:
    """English: 1st, 2nd, 3rd, 4th, 11th."""
    return "th" if n // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")


def _ordinal(params, words, text):
    n = params["n"]
    return {**params, "ordinal": words["ordinal"].format(n=n, suffix=_ordinal_suffix(n))}


def _recency(params, words, text):
    return {**params, "recency": words["recency"][params["k"]]}


LAST = Kind(  # the attribute of the k-th most recent item, k = 1, 2, 3
    name="df_last",
    subtask="df",
    attributes=ASKED,
    params=("k",),
    answers=lambda evidence: [[evidence.texts[-evidence.params["k"]]]],
    unordered_history=False,
    needed=(needs("attribute"), needs("recency", "k")),
    placeholders=_recency,
)
NTH = Kind(  # the attribute of the n-th item of h, counted from 1
    name="df_nth",
    subtask="df",
    attributes=ASKED,
    params=("n",),
    answers=lambda evidence: [[evidence.texts[evidence.params["n"] - 1]]],
    unordered_history=False,
    needed=(needs("attribute"), needs("ordinal", "n")),
    placeholders=_ordinal,
)
LIST = Kind(  # the attributes of the last k = 2, 3 items in time order
    name="df_list",
    subtask="df",
    attributes=ASKED,
    params=("k",),
    answers=lambda evidence: [list(evidence.texts[-evidence.params["k"] :])],
    ordered=True,
    unordered_history=False,
    needed=(needs("attribute"), needs("k")),
)
POSITION = Kind(  # the attribute of the n-th of the last `length` items, which are all of h
    name="df_position",
    subtask="df",
    attributes=ASKED,
    params=("n", "length"),
    answers=lambda evidence: [[evidence.texts[evidence.params["n"] - 1]]],
    unordered_history=False,
    needed=(needs("attribute"), needs("ordinal", "n"), needs("length")),
    placeholders=_ordinal,
)
BASKET = Kind(  # the attribute of an item in the k-th most recent basket, k = 1, 2, 3
    name="df_basket",
    subtask="df",
    attributes=ASKED,
    params=("k",),
    answers=lambda evidence: [[text] for text in evidence.baskets[-evidence.params["k"]]],
    unordered_history=False,
    needed=(needs("attribute"), needs("recency", "k")),
    placeholders=_recency,
)
_IS_LAST, _IS_NTH, _IS_LIST, _IS_BASKET = range(4)
"""Indices of the kinds in the families below, where `df_nth` and `df_position` have the same one."""


@inner
def direct_feature(ctx, asked, state, records, row):
    """The right answer ends (or begins) at one position of the history, wrong ones at like positions of the same one.

    Like positions: the k-th item before the end of *any* basket is as typical of its position as the k-th before the
    end of the history. Logs that sort a basket's rows by product would otherwise betray the answer without a history.
    """
    attribute = asked.attribute
    if attribute < 0:
        return MISSING
    draw = below(state, 10)
    kind = _IS_LAST if draw < 5 else (_IS_LIST if draw < 8 else _IS_NTH)
    near = chance(state, 0.5)
    starts = ctx.starts[asked.lo : asked.hi]
    size = 1
    if kind == _IS_NTH:
        n = 1 + below(state, LATEST_NTH)
        positions = _nth_after_basket_starts(starts, n)
        records.params[row, 0] = n
    else:
        k = 1 + below(state, MAX_K)
        if kind == _IS_LIST:
            k = 2 + below(state, MAX_K - 1)
            size = k
        records.params[row, 0] = k
        positions = _before_basket_ends(basket_ends(starts), k, size)
    if len(positions) < OPTIONS:
        return FEW
    if near:
        positions = positions[: 1 + NEAR]
    history = ctx.items[asked.lo : asked.hi]
    values = records.values[row]
    for option in range(OPTIONS):
        if option > 0:
            other = option + below(state, len(positions) - option)
            positions[option], positions[other] = positions[other], positions[option]
        for c in range(size):
            code = ctx.codes[history[positions[option] + c], attribute]
            if code < 0:
                return MISSING
            values[option, c] = code
        records.lengths[row, option] = size
    if any_equal(values):
        return SAME
    rank = rank_of_first(state, option_sums(ctx.popularity, ctx.base[attribute], values))
    finish(state, records, row, kind, attribute, kind * len(ASKED) + attribute, rank, rank)
    return ACCEPTED


@inner
def basket_feature(ctx, asked, state, records, row):
    """v2: the same where every order inside the baskets gives the same answer; else a value of a whole basket.

    Wrong options come from positions of which that holds too: values that often make up a basket of their own would
    otherwise be right more often. Options rank by popularity and by how often the history has them.
    """
    attribute = asked.attribute
    if attribute < 0:
        return MISSING
    starts = ctx.starts[asked.lo : asked.hi]
    codes = gather(ctx.codes, attribute, ctx.items[asked.lo : asked.hi])
    bounds = basket_bounds(starts)
    values = records.values[row]
    if len(bounds) - 1 < len(codes) and chance(state, BASKET_SHARE):
        kind = _IS_BASKET
        status = _basket_options(state, codes, bounds, records, row)
    else:
        draw = below(state, 10)
        kind = _IS_LAST if draw < 5 else (_IS_LIST if draw < 8 else _IS_NTH)
        status = _position_options(state, codes, starts, kind, records, row)
    if status != ACCEPTED:
        return status
    if any_equal(values):
        return SAME
    found = np.zeros(OPTIONS, np.int64)
    for option in range(OPTIONS):
        for c in range(records.lengths[row, option]):
            found[option] += occurrences(codes, values[option, c])
    rank = rank_of_first(state, option_sums(ctx.popularity, ctx.base[attribute], values))
    finish(state, records, row, kind, attribute, kind * len(ASKED) + attribute, rank, rank_of_first(state, found))
    return ACCEPTED


@inner
def _position_options(state, codes, starts, kind, records, row):
    """Write the codes at the position asked about and at three like ones, all of them the same in any order."""
    near = chance(state, 0.5)
    size = 1
    if kind == _IS_NTH:
        n = 1 + below(state, LATEST_NTH)
        positions = _nth_after_basket_starts(starts, n)
        records.params[row, 0] = n
        records.params[row, 1] = len(codes)
    else:
        k = 1 + below(state, MAX_K)
        if kind == _IS_LIST:
            k = 2 + below(state, MAX_K - 1)
            size = k
        records.params[row, 0] = k
        positions = _before_basket_ends(basket_ends(starts), k, size)
    same = same_in_any_order(codes, starts)
    found = 0
    for i in range(len(positions)):
        if same[positions[i] : positions[i] + size].all():
            positions[found] = positions[i]
            found += 1
        elif i == 0:
            return ORDER
    if found < OPTIONS:
        return FEW
    if near:
        found = min(found, 1 + NEAR)
    for option in range(OPTIONS):
        if option > 0:
            other = option + below(state, found - option)
            positions[option], positions[other] = positions[other], positions[option]
        for c in range(size):
            code = codes[positions[option] + c]
            if code < 0:
                return MISSING
            records.values[row, option, c] = code
        records.lengths[row, option] = size
    return ACCEPTED


@inner
def _basket_options(state, codes, bounds, records, row):
    """Write a code of the k-th most recent basket, and three of other baskets that it does not have."""
    baskets = len(bounds) - 1
    if baskets < OPTIONS:
        return FEW
    k = 1 + below(state, MAX_K)
    records.params[row, 0] = k
    right = baskets - k
    first = max(0, right - NEAR) if chance(state, 0.5) else 0
    own = codes[bounds[right] : bounds[right + 1]]
    for option in range(OPTIONS):
        basket = right
        if option > 0:
            basket = first + below(state, baskets - first - 1)
            basket += basket >= right
        code = codes[bounds[basket] + below(state, bounds[basket + 1] - bounds[basket])]
        if code < 0:
            return MISSING
        if option > 0 and holds(own, code):
            return SAME
        records.values[row, option, 0] = code
    return ACCEPTED


@inner
def _nth_after_basket_starts(starts, n):
    """Indices of the n-th item counted from each basket start, those of the history's own start first, then onwards."""
    out = np.empty(len(starts), np.int64)
    size = 0
    for p in range(len(starts) - n + 1):
        if p == 0 or starts[p] or not starts[0]:
            out[size] = p + n - 1
            size += 1
    return out[:size]


@inner
def _before_basket_ends(ends, k, size):
    """First indices of the runs of `size` items that begin k items before a basket end and do not overlap, the latest
    run first."""
    out = np.empty(len(ends), np.int64)
    found = 0
    for i in range(len(ends) - 1, -1, -1):
        p = ends[i] - k
        if p >= 0 and (found == 0 or p + size <= out[found - 1]):
            out[found] = p
            found += 1
    return out[:found]


_WORDS = {
    "recency": Word(keys=tuple(range(1, MAX_K + 1))),
    "ordinal": Word(needed=needs("n"), optional=needs("suffix")),
}


def _family(kinds, generate, version):
    return Family(
        kinds=kinds,
        file=__file__,
        generate=generate,
        draw_attribute=any_attribute,
        versions=(version,),
        words=_WORDS,
    )


FAMILY = _family((LAST, NTH, LIST), direct_feature, "v1")
BASKETS_FAMILY = _family((LAST, POSITION, LIST, BASKET), basket_feature, "v2")
