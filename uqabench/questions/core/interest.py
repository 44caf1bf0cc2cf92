"""Interest perception: li (long-term), si (short-term) and it (trajectory), and the right answers for their pools."""

from __future__ import annotations

import numpy as np

from uqabench.questions.core.compiled import inner
from uqabench.questions.core.context import ACCEPTED, FEW, MISSING, NO_CHANGE, NOT_ENOUGH, SAME, TIE
from uqabench.questions.core.histories import basket_ends, dominant, gather, tally
from uqabench.questions.core.options import SPREADS, finish, repeated, spread_of, standing, summed
from uqabench.questions.core.rng import below, chance, keyed_state
from uqabench.questions.kinds import IT_PATH, LI_TOP3, LONGEST_ANSWER, OPTIONS, SI_RECENT

LI, SI, IT = 0, 1, 2
WAYS = 4
"""Ways to classify the answers of a pool: not at all, or by the first, second or last value."""
OWN_WINDOWS = 0.6
REVERSED = 0.35
SETTLED_SALT = 64


@inner
def right_answer(which, codes, window, out):
    """Write the answer (-1 padded) of LI, SI or IT for a history's codes; returns (status, length)."""
    if which == LI:
        return _top_three(codes, out)
    if which == SI:
        code = dominant(codes[max(0, len(codes) - window) :])
        if code < 0:
            return (FEW if code == -1 else TIE), 0
        out[0] = code
        return ACCEPTED, 1
    return _path(codes, out)


@inner
def _top_three(codes, out):
    values, counts = tally(codes)
    if len(values) < LONGEST_ANSWER:
        return FEW, 0
    previous = -1
    for rank in range(LONGEST_ANSWER):
        best = 0
        for i in range(1, len(values)):
            if counts[i] > counts[best]:
                best = i
        if counts[best] == previous:
            return TIE, 0
        previous = counts[best]
        out[rank] = values[best]
        counts[best] = 0
    if counts.max() == previous:
        return TIE, 0
    return ACCEPTED, LONGEST_ANSWER


@inner
def _path(codes, out):
    length = 0
    for third in range(3):
        code = dominant(codes[third * len(codes) // 3 : (third + 1) * len(codes) // 3])
        if code < 0:
            return (FEW if code == -1 else TIE), 0
        if length == 0 or out[length - 1] != code:
            out[length] = code
            length += 1
    return ACCEPTED, length


@inner
def _compare(a, b):
    for c in range(LONGEST_ANSWER):
        if a[c] != b[c]:
            return -1 if a[c] < b[c] else 1
    return 0


@inner
def _bound(ctx, lo, hi, answer, after):
    """First row of the sorted pool at (`after`: past) the answer."""
    while lo < hi:
        middle = (lo + hi) // 2
        order = _compare(ctx.pool_values[middle], answer)
        if order < 0 or (after and order == 0):
            lo = middle + 1
        else:
            hi = middle
    return lo


@inner
def pool_frequency(ctx, which, attribute, answer):
    """How many training histories in the pool have this answer."""
    lo, hi = ctx.pool_bounds[which, attribute]
    return _bound(ctx, lo, hi, answer, True) - _bound(ctx, lo, hi, answer, False)


@inner
def interest(ctx, state, lo, hi, which, user, cut, records, row):
    """li, si or it. Wrong options follow the law of right ones, so the four are exchangeable to one who has no history:

    - they are drawn from the right answers of other training histories that agree with the right one in the way
      drawn (not at all, first, second or last value), or
    - si: they dominate other windows of the same history, or
    - it: a path, another from the pool, and both reversed.
    Which of these, and whether an unchanged interest is asked about, is settled for a history and an attribute once and
    for all its attempts: what one way cannot ask (a path that reads the same reversed) must not gather in another. A
    candidate with two equal options is given up, not mended: mending would make frequent answers more often right.
    """
    if len(ctx.side) == 0:
        return MISSING
    attribute = ctx.side[below(state, len(ctx.side))]
    codes = gather(ctx.codes[attribute], ctx.items[lo:hi])
    values, lengths = records.values[row], records.lengths[row]
    status, length = right_answer(which, codes, ctx.window, values[0])
    if status != ACCEPTED:
        return status
    lengths[0] = length
    settled = keyed_state(ctx.seed, SETTLED_SALT + which, user, cut, attribute)
    if which == IT and length == 1 and not chance(settled, ctx.no_change_keep[attribute]):
        return NO_CHANGE
    way = 0 if which == SI else below(settled, WAYS)
    if which == SI and len(codes) >= 4 * ctx.window and chance(settled, OWN_WINDOWS):
        status = _own_windows(ctx, state, codes, ctx.starts[lo:hi], values)
    elif which == IT and chance(settled, REVERSED):
        status = _reversals(ctx, state, attribute, values, lengths)
    else:
        status = _from_pool(ctx, state, which, attribute, way, values, lengths)
    if status != ACCEPTED:
        return status
    if repeated(values):
        return SAME
    frequency = np.empty(OPTIONS, np.int64)
    for option in range(OPTIONS):
        frequency[option] = pool_frequency(ctx, which, attribute, values[option])
    level = standing(state, frequency)
    popular = standing(state, summed(ctx.popularity, ctx.base[attribute], values))
    kind = LI_TOP3 if which == LI else (SI_RECENT if which == SI else IT_PATH)
    if which == SI:
        records.params[row, 0] = ctx.window
    group = 2 * (attribute * SPREADS + spread_of(frequency)) + (which == IT and lengths.min() == 1)
    finish(state, records, row, kind, attribute, group, level, popular)
    return ACCEPTED


@inner
def _from_pool(ctx, state, which, attribute, way, values, lengths):
    start, large, end = ctx.class_bounds[which, attribute, way]
    if way > 0:
        key = values[0, lengths[0] - 1] if way == WAYS - 1 else values[0, way - 1]
        lo = large + np.searchsorted(ctx.class_keys[large:end], key, side="left")
        hi = large + np.searchsorted(ctx.class_keys[large:end], key, side="right")
        # Small classes are thrown together, rather than abandoned: their answers would be the rare ones among others.
        if lo < hi:
            start, end = lo, hi
        else:
            end = large
    if start >= end:
        return NOT_ENOUGH
    for option in range(1, OPTIONS):
        drawn = ctx.class_index[start + below(state, end - start)]
        values[option] = ctx.pool_values[drawn]
        lengths[option] = ctx.pool_lengths[drawn]
    return ACCEPTED


@inner
def _own_windows(ctx, state, codes, starts, values):
    """Dominant values of three other windows that end with a basket, before the recent window begins."""
    ends = basket_ends(starts)
    first = np.searchsorted(ends, ctx.window)
    last = np.searchsorted(ends, len(codes) - ctx.window, side="right")
    if last - first < OPTIONS - 1:
        return NOT_ENOUGH
    for option in range(1, OPTIONS):
        end = ends[first + below(state, last - first)]
        code = dominant(codes[end - ctx.window : end])
        if code < 0:
            return TIE
        values[option, 0] = code
    return ACCEPTED


@inner
def _reversals(ctx, state, attribute, values, lengths):
    """Option 1 the right path reversed, 2 another path, 3 that one reversed."""
    start, _, end = ctx.class_bounds[IT, attribute, 0]
    if start >= end:
        return NOT_ENOUGH
    drawn = ctx.class_index[start + below(state, end - start)]
    values[2] = ctx.pool_values[drawn]
    lengths[2] = ctx.pool_lengths[drawn]
    for option in (1, 3):
        length = lengths[option - 1]
        lengths[option] = length
        for c in range(length):
            values[option, c] = values[option - 1, length - 1 - c]
    return ACCEPTED
