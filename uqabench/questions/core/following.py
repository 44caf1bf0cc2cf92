"""Action prediction: ip and ap, what comes next. Wrong options look like the right one to everything but the user."""

from __future__ import annotations

import numpy as np

from uqabench.questions.core.compiled import inner
from uqabench.questions.core.context import ACCEPTED, MISSING, NOT_ENOUGH
from uqabench.questions.core.histories import count_of, gather, tally
from uqabench.questions.core.options import SPREADS, finish, spread_of, standing, summed
from uqabench.questions.core.rng import below
from uqabench.questions.kinds import AP_NEXT, IP_NEXT, OPTIONS


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


@inner
def next_feature(ctx, state, lo, hi, title, records, row):
    """ip (`title`) or ap: four neighbours in the order of `Context.order`, all of which occur in h equally often.

    The order is by category (ip), by how often a value comes next in training, then by popularity. The right
    answer's place among the four is drawn, so that neither popularity nor "bought before" says which one is right.
    """
    if title:
        attribute, kind = 0, IP_NEXT
    else:
        if len(ctx.side) == 0:
            return MISSING
        attribute, kind = ctx.side[below(state, len(ctx.side))], AP_NEXT
    table = ctx.codes[attribute]
    right = table[ctx.items[hi]]
    if right < 0:
        return MISSING
    values, counts = tally(gather(table, ctx.items[lo:hi]))
    level = below(state, OPTIONS)
    records.values[row, 0, 0] = right
    if count_of(values, counts, right) == 0:
        enough = _unseen_neighbours(ctx, ctx.base[attribute], right, level, values, counts, records.values[row])
    else:
        enough = _seen_neighbours(ctx, ctx.base[attribute], right, level, values, counts, records.values[row])
    if not enough:
        return NOT_ENOUGH
    group = attribute * SPREADS + spread_of(summed(ctx.following, ctx.base[attribute], records.values[row]))
    popular = standing(state, summed(ctx.popularity, ctx.base[attribute], records.values[row]))
    finish(state, records, row, kind, attribute, group, level, popular)
    return ACCEPTED


@inner
def _unseen_neighbours(ctx, base, right, level, values, counts, out):
    """Write `level` values below `right` and the rest above, all absent from the history; False if there are not."""
    found = 0
    for direction, wanted in ((-1, level), (1, OPTIONS - 1)):
        place = ctx.place[base + right] + direction
        while found < wanted and ctx.group_lo[base + right] <= place < ctx.group_hi[base + right]:
            code = ctx.order[place]
            if count_of(values, counts, code) == 0:
                found += 1
                out[found, 0] = code
            place += direction
        if found < wanted:
            return False
    return True


@inner
def _seen_neighbours(ctx, base, right, level, values, counts, out):
    """The same among values of the history that occur as often as `right`."""
    wanted = occurrence_class(count_of(values, counts, right))
    places = np.empty(len(values), np.int64)
    size = 0
    for i in range(len(values)):
        place = ctx.place[base + values[i]]
        if occurrence_class(counts[i]) == wanted and ctx.group_lo[base + right] <= place < ctx.group_hi[base + right]:
            places[size] = place
            size += 1
    places = np.sort(places[:size])
    first = np.searchsorted(places, ctx.place[base + right]) - level
    if first < 0 or first + OPTIONS > size:
        return False
    found = 0
    for i in range(first, first + OPTIONS):
        if places[i] != ctx.place[base + right]:
            found += 1
            out[found, 0] = ctx.order[places[i]]
    return True
