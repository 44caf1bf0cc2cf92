"""df, direct features: which value an item at a stated position of the history has."""

from __future__ import annotations

import numpy as np

from uqabench.questions.core.compiled import inner
from uqabench.questions.core.context import ACCEPTED, FEW, MISSING, SAME
from uqabench.questions.core.histories import basket_ends
from uqabench.questions.core.options import any_equal, finish, option_sums, rank_of_first
from uqabench.questions.core.rng import below, chance
from uqabench.questions.declaration import ASKED, OPTIONS, Family, Kind, Word, needs

NEAR = 8
"""In half of the questions wrong options come from the eight positions nearest to the one asked about."""
LATEST_NTH = 10
MAX_K = 3


def _ordinal_suffix(n: int) -> str:
    """English: 1st, 2nd, 3rd, 4th, 11th."""
    return "th" if n // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")


KINDS = (
    Kind(  # the attribute of the k-th most recent item, k = 1, 2, 3
        name="df_last",
        subtask="df",
        attributes=ASKED,
        params=("k",),
        answer=lambda evidence: [evidence.texts[-evidence.params["k"]]],
        unordered_history=False,
        needed=(needs("attribute"), needs("recency", "k")),
        placeholders=lambda params, words, text: {**params, "recency": words["recency"][params["k"]]},
    ),
    Kind(  # the attribute of the n-th item of h, counted from 1
        name="df_nth",
        subtask="df",
        attributes=ASKED,
        params=("n",),
        answer=lambda evidence: [evidence.texts[evidence.params["n"] - 1]],
        unordered_history=False,
        needed=(needs("attribute"), needs("ordinal", "n")),
        placeholders=lambda params, words, text: {
            **params,
            "ordinal": words["ordinal"].format(n=params["n"], suffix=_ordinal_suffix(params["n"])),
        },
    ),
    Kind(  # the attributes of the last k = 2, 3 items in time order
        name="df_list",
        subtask="df",
        attributes=ASKED,
        params=("k",),
        answer=lambda evidence: list(evidence.texts[-evidence.params["k"] :]),
        ordered=True,
        unordered_history=False,
        needed=(needs("attribute"), needs("k")),
    ),
)
LAST, NTH, LIST = range(len(KINDS))


@inner
def direct_feature(ctx, asked, state, records, row):
    """The right answer ends (or begins) at one position of the history, wrong ones at like positions of the same one.

    Like positions: the k-th item before the end of *any* basket is as typical of its position as the k-th before the
    end of the history. Logs that sort a basket's rows by product would otherwise betray the answer without a history.
    """
    if len(ctx.asked) == 0:
        return MISSING
    attribute = ctx.asked[below(state, len(ctx.asked))]
    draw = below(state, 10)
    kind = LAST if draw < 5 else (LIST if draw < 8 else NTH)
    near = chance(state, 0.5)
    starts = ctx.starts[asked.lo : asked.hi]
    size = 1
    if kind == NTH:
        n = 1 + below(state, LATEST_NTH)
        positions = _nth_after_basket_starts(starts, n)
        records.params[row, 0] = n
    else:
        k = 1 + below(state, MAX_K)
        if kind == LIST:
            k = 2 + below(state, MAX_K - 1)
            size = k
        records.params[row, 0] = k
        positions = _before_basket_ends(basket_ends(starts), k, size)
    if len(positions) < OPTIONS:
        return FEW
    if near:
        positions = positions[: 1 + NEAR]
    history = ctx.items[asked.lo : asked.hi]
    table = ctx.codes[attribute]
    values = records.values[row]
    for option in range(OPTIONS):
        if option > 0:
            other = option + below(state, len(positions) - option)
            positions[option], positions[other] = positions[other], positions[option]
        for c in range(size):
            code = table[history[positions[option] + c]]
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


FAMILY = Family(
    kinds=KINDS,
    file=__file__,
    generate=direct_feature,
    words={
        "recency": Word(keys=tuple(range(1, MAX_K + 1))),
        "ordinal": Word(needed=needs("n"), optional=needs("suffix")),
    },
)
