"""Wrong options drawn from a pool: the right answers of training histories to the same question (see `pools`)."""

from __future__ import annotations

import numpy as np

from uqabench.questions.core.compiled import inner
from uqabench.questions.core.context import ACCEPTED, NOT_ENOUGH, SAME, TOO_RARE
from uqabench.questions.core.options import SPREADS, any_equal, finish, rank_of_first, spread_of
from uqabench.questions.core.rng import below, keyed_state
from uqabench.questions.declaration import LONGEST_ANSWER, OPTIONS

CLASSIFICATIONS = 4
"""The ways to classify the answers of a pool: not at all, or by the first, second or last value."""
_SETTLED_SALT = 64


@inner
def settled_state(ctx, asked, attribute):
    """Random state that all attempts at one history and attribute share.

    How wrong options are made, and whether an unchanged interest is asked about, is drawn from it once: what one way
    cannot ask (a path that reads the same reversed) must not gather in another.
    """
    return keyed_state(ctx.seed, _SETTLED_SALT + asked.pool, asked.user, asked.cut, attribute)


@inner
def keep_answer(ctx, asked, attribute, answer, length):
    """Leave the right answer, and its row in the pool, to the next candidates for this history and attribute."""
    enter_answer(ctx, asked.pool, attribute, answer, length, asked.answers, asked.lengths, asked.rows)


@inner
def enter_answer(ctx, pool, attribute, answer, length, answers, lengths, rows):
    """Write what `Asked` has of a history's right answer: answers (4, 3), lengths (4,), rows (4,)."""
    for c in range(LONGEST_ANSWER):
        answers[attribute, c] = answer[c]
    lengths[attribute] = length
    rows[attribute] = _row_of(ctx, pool, attribute, answer)


@inner
def kept_answer(asked, attribute, answer):
    """Write the right answer that an earlier candidate left, and return its length; 0 where none did."""
    length = asked.lengths[attribute]
    if length > 0:
        for c in range(LONGEST_ANSWER):
            answer[c] = asked.answers[attribute, c]
    return length


@inner
def not_drawn():
    """int64 (4,): for each option the row of the pool that it was taken from, -1: none."""
    return np.full(OPTIONS, -1, np.int64)


@inner
def draw_from_pool(ctx, asked, state, records, row, attribute, classification, drawn):
    """Write options 1 to 3: answers of the pool that agree with option 0 under a classification; and their rows."""
    asked.rare[attribute] = asked.rows[attribute] < 0
    if asked.rare[attribute] and asked.closed[attribute]:
        return TOO_RARE
    values, lengths = records.values[row], records.lengths[row]
    start, large, end = ctx.class_bounds[asked.pool, attribute, classification]
    if classification > 0:
        key = values[0, lengths[0] - 1] if classification == CLASSIFICATIONS - 1 else values[0, classification - 1]
        lo = large + np.searchsorted(ctx.class_keys[large:end], key, side="left")
        hi = large + np.searchsorted(ctx.class_keys[large:end], key, side="right")
        # Small classes are merged into one rather than left out: their answers would be the rare ones among others.
        if lo < hi:
            start, end = lo, hi
        else:
            end = large
    if start >= end:
        return NOT_ENOUGH
    for option in range(1, OPTIONS):
        at = ctx.class_index[start + below(state, end - start)]
        for c in range(LONGEST_ANSWER):
            values[option, c] = ctx.pool_values[at, c]
        lengths[option] = ctx.pool_lengths[at]
        drawn[option] = at
    return ACCEPTED


@inner
def finish_pooled(ctx, asked, state, records, row, attribute, has_single, drawn):
    """Balance the right answer, which is kept, by its frequency in the pool; `drawn`: see `not_drawn`; `has_single`: an
    option of a *path* lists one value.

    A candidate with two equal options is discarded, not repaired: that would make frequent answers more often right.
    """
    values = records.values[row]
    if any_equal(values):
        return SAME
    frequency, popularity = np.empty(OPTIONS, np.int64), np.empty(OPTIONS, np.int64)
    for option in range(OPTIONS):
        at = drawn[option] if option > 0 else asked.rows[attribute]
        if at < 0 and option > 0:
            at = _row_of(ctx, asked.pool, attribute, values[option])
        frequency[option] = ctx.pool_counts[at, 0] if at >= 0 else 0
        popularity[option] = ctx.pool_counts[at, 1] if at >= 0 else _popularity(ctx, attribute, values[option])
    rank = rank_of_first(state, frequency)
    popularity_rank = rank_of_first(state, popularity)
    group = pooled_group(attribute, spread_of(frequency), has_single)
    finish(state, records, row, 0, attribute, group, rank, popularity_rank)
    return ACCEPTED


@inner
def pooled_group(attribute, spread, has_single):
    """The group in which right answers of pooled families are balanced."""
    return 2 * (attribute * SPREADS + spread) + has_single


@inner
def _popularity(ctx, attribute, answer):
    """How popular the values of an answer are together."""
    out = np.int64(0)
    for c in range(LONGEST_ANSWER):
        if answer[c] >= 0:
            out += ctx.popularity[ctx.base[attribute] + answer[c]]
    return out


@inner
def _row_of(ctx, pool, attribute, answer):
    """A row of the sorted pool with this answer, -1 where there is none."""
    lo, hi = ctx.pool_bounds[pool, attribute]
    end = hi
    while lo < hi:
        middle = (lo + hi) // 2
        if _compare(ctx.pool_values[middle], answer) < 0:
            lo = middle + 1
        else:
            hi = middle
    if lo < end and _compare(ctx.pool_values[lo], answer) == 0:
        return lo
    return np.int64(-1)


@inner
def _compare(a, b):
    """-1, 0 or 1: the lexicographic order of two answers."""
    for c in range(LONGEST_ANSWER):
        if a[c] != b[c]:
            return -1 if a[c] < b[c] else 1
    return 0
