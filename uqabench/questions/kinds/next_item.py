"""ip and ap, action prediction: title and attribute of the next item.

Wrong options look like the right one to everything but the user.
"""

from __future__ import annotations

import numpy as np

from uqabench.questions.core.compiled import inner
from uqabench.questions.core.context import ACCEPTED, MISSING, NOT_ENOUGH
from uqabench.questions.core.histories import count_of, gather, tally
from uqabench.questions.core.options import SPREADS, finish, option_sums, rank_of_first, spread_of
from uqabench.questions.core.rng import below
from uqabench.questions.declaration import OPTIONS, SIDE, Evidence, Family, Kind, needs

TITLE = 0


def _next_text(evidence: Evidence) -> list[str | None]:
    return [evidence.following[0]]


@inner
def next_title(ctx, asked, state, records, row):
    """ip: the title of items[asked.hi]."""
    return _next_value(ctx, asked, state, records, row, TITLE)


@inner
def next_attribute(ctx, asked, state, records, row):
    """ap: another attribute of items[asked.hi]."""
    if len(ctx.side) == 0:
        return MISSING
    return _next_value(ctx, asked, state, records, row, ctx.side[below(state, len(ctx.side))])


@inner
def _next_value(ctx, asked, state, records, row, attribute):
    """Four neighbours in `Context.order`, all of which occur in the history equally often.

    The order is by category (titles), by how often a value comes next in training, then by popularity. The right
    answer's rank among the four is drawn, so that neither popularity nor "bought before" says which one is right.
    """
    table = ctx.codes[attribute]
    right = table[ctx.items[asked.hi]]
    if right < 0:
        return MISSING
    values, counts = tally(gather(table, ctx.items[asked.lo : asked.hi]))
    rank = below(state, OPTIONS)
    options, base = records.values[row], ctx.base[attribute]
    options[0, 0] = right
    if count_of(values, counts, right) == 0:
        enough = _unseen_neighbours(ctx, base, right, rank, values, counts, options)
    else:
        enough = _seen_neighbours(ctx, base, right, rank, values, counts, options)
    if not enough:
        return NOT_ENOUGH
    group = attribute * SPREADS + spread_of(option_sums(ctx.following, base, options))
    popularity_rank = rank_of_first(state, option_sums(ctx.popularity, base, options))
    finish(state, records, row, 0, attribute, group, rank, popularity_rank)
    return ACCEPTED


@inner
def _unseen_neighbours(ctx, base, right, rank, values, counts, out):
    """Write `rank` values before `right` in the order and the rest after it, none of which the history has; False if
    there are too few."""
    found = 0
    for direction, wanted in ((-1, rank), (1, OPTIONS - 1)):
        index = ctx.rank[base + right] + direction
        while found < wanted and ctx.group_lo[base + right] <= index < ctx.group_hi[base + right]:
            code = ctx.order[index]
            if count_of(values, counts, code) == 0:
                found += 1
                out[found, 0] = code
            index += direction
        if found < wanted:
            return False
    return True


@inner
def _seen_neighbours(ctx, base, right, rank, values, counts, out):
    """The same among values that occur in the history as often as `right` does."""
    wanted = occurrence_class(count_of(values, counts, right))
    indices = np.empty(len(values), np.int64)
    size = 0
    for i in range(len(values)):
        index = ctx.rank[base + values[i]]
        if occurrence_class(counts[i]) == wanted and ctx.group_lo[base + right] <= index < ctx.group_hi[base + right]:
            indices[size] = index
            size += 1
    indices = np.sort(indices[:size])
    first = np.searchsorted(indices, ctx.rank[base + right]) - rank
    if first < 0 or first + OPTIONS > size:
        return False
    found = 0
    for i in range(first, first + OPTIONS):
        if indices[i] != ctx.rank[base + right]:
            found += 1
            out[found, 0] = ctx.order[indices[i]]
    return True


@inner
def occurrence_class(count):
    """Counts that pass for equal: 0, 1, 2 and 3 each alone, then 4-5, 6-8, 9-13, … (each half as wide as its start)."""
    if count <= 3:
        return count
    low, index = 4, 4
    while count >= low + low // 2:
        low += low // 2
        index += 1
    return index


TITLE_FAMILY = Family(
    kinds=(Kind(name="ip_next", subtask="ip", attributes=("title",), answer=_next_text, allowed=needs("attribute")),),
    file=__file__,
    generate=next_title,
)
ATTRIBUTE_FAMILY = Family(
    kinds=(Kind(name="ap_next", subtask="ap", attributes=SIDE, answer=_next_text, needed=(needs("attribute"),)),),
    file=__file__,
    generate=next_attribute,
)
