"""Direct and match features: df (what stands where in the history) and mf (how often, how long)."""

from __future__ import annotations

import numpy as np

from uqabench.questions.core.compiled import inner
from uqabench.questions.core.context import ACCEPTED, FEW, MISSING, NOT_ENOUGH, SAME, SATURATED
from uqabench.questions.core.histories import basket_ends, gather, tally
from uqabench.questions.core.options import finish, repeated, standing, summed
from uqabench.questions.core.rng import below, chance
from uqabench.questions.kinds import DF_LAST, DF_LIST, DF_NTH, MF_COUNT, MF_LENGTH, OPTIONS

NEAR = 8
"""In half of the df questions wrong options come from the eight places nearest to the one asked about."""
LATEST_NTH = 10
MAX_K = 3


@inner
def direct_feature(ctx, state, lo, hi, records, row):
    """df: the right answer ends (or begins) at one place of the history, wrong ones at like places of the same one.

    Like places: the k-th item before the end of *any* basket is as typical of its place as the k-th before the end
    of the history. Logs that order a basket's rows by product would otherwise betray the answer without a history.
    """
    if len(ctx.asked) == 0:
        return MISSING
    attribute = ctx.asked[below(state, len(ctx.asked))]
    draw = below(state, 10)
    kind = DF_LAST if draw < 5 else (DF_LIST if draw < 8 else DF_NTH)
    near = chance(state, 0.5)
    size = 1
    if kind == DF_NTH:
        n = 1 + below(state, LATEST_NTH)
        places = _beginnings(ctx.starts[lo:hi], n)
        records.params[row, 0] = n
    else:
        ends = basket_ends(ctx.starts[lo:hi])
        k = 1 + below(state, MAX_K)
        if kind == DF_LIST:
            k = 2 + below(state, MAX_K - 1)
            size = k
        records.params[row, 0] = k
        places = _before(ends, k, size)
    if len(places) < OPTIONS:
        return FEW
    if near:
        places = places[: 1 + NEAR]
    history = ctx.items[lo:hi]
    table = ctx.codes[attribute]
    values = records.values[row]
    for option in range(OPTIONS):
        if option > 0:
            other = option + below(state, len(places) - option)
            places[option], places[other] = places[other], places[option]
        for c in range(size):
            code = table[history[places[option] + c]]
            if code < 0:
                return MISSING
            values[option, c] = code
        records.lengths[row, option] = size
    if repeated(values):
        return SAME
    level = standing(state, summed(ctx.popularity, ctx.base[attribute], values))
    finish(state, records, row, kind, attribute, kind * 4 + attribute, level, level)
    return ACCEPTED


@inner
def _beginnings(starts, n):
    """Positions of the n-th item after each beginning, the history's first, then from near to far."""
    out = np.empty(len(starts), np.int64)
    size = 0
    for p in range(len(starts) - n + 1):
        if p == 0 or starts[p] or not starts[0]:
            out[size] = p + n - 1
            size += 1
    return out[:size]


@inner
def _before(ends, k, size):
    """First positions of the runs of `size` items that begin k items before an end and do not overlap, latest first."""
    out = np.empty(len(ends), np.int64)
    found = 0
    for i in range(len(ends) - 1, -1, -1):
        p = ends[i] - k
        if p >= 0 and (found == 0 or p + size <= out[found - 1]):
            out[found] = p
            found += 1
    return out[:found]


@inner
def step_of(smallest):
    """Distance between the offered counts: 1 up to 7, then growing, so that large counts need not be exact."""
    return 1 + smallest // 8


@inner
def _smallest_option(count, level):
    """The smallest count offered when `count` is to be the level-th; -1 if no such offer exists.

    The distance depends on the smallest option, not on the right one, which it would betray.
    """
    for smallest in range(1, count + 1):
        if smallest + step_of(smallest) * level == count:
            return smallest
    return -1


@inner
def match_feature(ctx, state, lo, hi, records, row):
    """mf: counts of a value in the history, or its length; the right one's place among the sorted is drawn first."""
    level = below(state, OPTIONS)
    length = hi - lo
    if len(ctx.asked) == 0 or chance(state, 0.15):
        if length >= ctx.n_history:
            return SATURATED
        smallest = _smallest_option(length, level)
        if smallest < ctx.min_history or smallest + 3 * step_of(smallest) >= ctx.n_history:
            return NOT_ENOUGH
        _offer(records, row, smallest, level)
        finish(state, records, row, MF_LENGTH, -1, 0, level, level)
        return ACCEPTED
    attribute = ctx.asked[below(state, len(ctx.asked))]
    values, counts = tally(gather(ctx.codes[attribute], ctx.items[lo:hi]))
    if len(values) == 0:
        return MISSING
    eligible = np.empty(len(values), np.int64)
    size = 0
    for i in range(len(values)):
        smallest = _smallest_option(counts[i], level)
        if smallest > 0 and smallest + 3 * step_of(smallest) <= length:
            eligible[size] = i
            size += 1
    if size == 0:
        return NOT_ENOUGH
    chosen = eligible[below(state, size)]
    smallest = _smallest_option(counts[chosen], level)
    records.params[row, 0] = values[chosen]
    _offer(records, row, smallest, level)
    # Popular values are counted more often: places are balanced among values of like popularity and like options.
    bin_of = 0 if smallest == 1 else (1 if smallest == 2 else (2 if smallest < 5 else (3 if smallest < 9 else 4)))
    group = 1 + (attribute * 4 + ctx.mass_bin[ctx.base[attribute] + values[chosen]]) * 5 + bin_of
    finish(state, records, row, MF_COUNT, attribute, group, level, level)
    return ACCEPTED


@inner
def _offer(records, row, smallest, level):
    """Four counts from `smallest` on, the level-th first."""
    records.values[row, 0, 0] = smallest + step_of(smallest) * level
    option = 1
    for place in range(OPTIONS):
        if place != level:
            records.values[row, option, 0] = smallest + step_of(smallest) * place
            option += 1
