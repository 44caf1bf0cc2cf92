"""mf, match features: how often a value occurs in the history, and how long the history is."""

from __future__ import annotations

import numpy as np

from uqabench.questions.core.attributes import drawn_later
from uqabench.questions.core.compiled import inner
from uqabench.questions.core.context import ACCEPTED, MISSING, NOT_ENOUGH, SATURATED
from uqabench.questions.core.histories import gather, tally
from uqabench.questions.core.options import finish
from uqabench.questions.core.rng import below, chance
from uqabench.questions.declaration import ASKED, OPTIONS, Family, Kind, needs

LENGTH_SHARE = 0.15
"""Share of the attempts that ask for the length."""

KINDS = (
    Kind(  # how often h has the value with code `target`
        name="mf_count",
        subtask="mf",
        attributes=ASKED,
        params=("target",),
        answers=lambda evidence: [[evidence.texts.count(evidence.text(evidence.params["target"]))]],
        counts=True,
        unordered_history=False,
        needed=(needs("attribute"), needs("value")),
        placeholders=lambda params, words, text: {"value": text(params["target"])},
    ),
    Kind(  # the length of h
        name="mf_length",
        subtask="mf",
        attributes=(),
        answers=lambda evidence: [[len(evidence.texts)]],
        counts=True,
        unordered_history=False,
    ),
)
COUNT, LENGTH = range(len(KINDS))


@inner
def match_feature(ctx, asked, state, records, row):
    """Four counts at equal steps. The right one's rank among them is drawn first, so that its size says nothing."""
    rank = below(state, OPTIONS)
    length = asked.hi - asked.lo
    if len(ctx.asked) == 0 or chance(state, LENGTH_SHARE):
        if length >= ctx.n_history:
            return SATURATED
        smallest = _smallest_option(length, rank)
        if smallest < ctx.min_history or smallest + 3 * _step(smallest) >= ctx.n_history:
            return NOT_ENOUGH
        _write_options(records, row, smallest, rank)
        finish(state, records, row, LENGTH, -1, 0, rank, rank)
        return ACCEPTED
    attribute = ctx.asked[below(state, len(ctx.asked))]
    values, counts = tally(gather(ctx.codes, attribute, ctx.items[asked.lo : asked.hi]))
    if len(values) == 0:
        return MISSING
    eligible = np.empty(len(values), np.int64)
    size = 0
    for i in range(len(values)):
        smallest = _smallest_option(counts[i], rank)
        if smallest > 0 and smallest + 3 * _step(smallest) <= length:
            eligible[size] = i
            size += 1
    if size == 0:
        return NOT_ENOUGH
    chosen = eligible[below(state, size)]
    smallest = _smallest_option(counts[chosen], rank)
    records.params[row, 0] = values[chosen]
    _write_options(records, row, smallest, rank)
    # Popular values have higher counts: ranks are balanced among values of like popularity and like options.
    size_class = 0 if smallest == 1 else (1 if smallest == 2 else (2 if smallest < 5 else (3 if smallest < 9 else 4)))
    group = 1 + (attribute * 4 + ctx.mass_bin[ctx.base[attribute] + values[chosen]]) * 5 + size_class
    finish(state, records, row, COUNT, attribute, group, rank, rank)
    return ACCEPTED


@inner
def _step(smallest):
    """Difference between neighbouring options: 1 up to 7, then growing, so that large counts need not be exact."""
    return 1 + smallest // 8


@inner
def _smallest_option(count, rank):
    """The smallest of four options of which `count` has the given rank; -1 if there are none.

    The step depends on the smallest option, not on the right one, which it would betray.
    """
    for smallest in range(1, count + 1):
        if smallest + _step(smallest) * rank == count:
            return smallest
    return -1


@inner
def _write_options(records, row, smallest, rank):
    """Four counts from `smallest` on; the one of the given rank, the right one, is written first."""
    records.values[row, 0, 0] = smallest + _step(smallest) * rank
    option = 1
    for other in range(OPTIONS):
        if other != rank:
            records.values[row, option, 0] = smallest + _step(smallest) * other
            option += 1


FAMILY = Family(kinds=KINDS, file=__file__, generate=match_feature, draw_attribute=drawn_later)
