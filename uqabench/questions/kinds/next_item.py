"""ip and ap, action prediction: title and attribute of the next item.

Wrong options look like the right one to everything but the user. In v1 the next item is the first one that is stored
after the cut. In v2 any item of the next basket is right and none of its values is a wrong option, and there are two
levels: `natural`, where wrong options are what other users took next in the same period, matched in how often that is,
and `matched`, where they occur in the history as often as the right one does (titles: and share its category).
"""

from __future__ import annotations

import numpy as np

from uqabench.questions.core.attributes import side_attribute, title
from uqabench.questions.core.compiled import inner
from uqabench.questions.core.context import ACCEPTED, MISSING, NOT_ENOUGH, SAME
from uqabench.questions.core.histories import basket_end, count_codes, gather, holds, occurrences
from uqabench.questions.core.options import SPREADS, any_equal, finish, option_sums, rank_of_first, spread_of
from uqabench.questions.core.rng import below
from uqabench.questions.declaration import OPTIONS, SIDE, Evidence, Family, Kind, needs

TRIES = 64
"""Draws for one wrong option of the level `natural` before the candidate is given up."""


@inner
def first_value(ctx, asked, state, records, row):
    """v1: the value of items[asked.hi]."""
    if asked.attribute < 0:
        return MISSING
    right = ctx.codes[ctx.items[asked.hi], asked.attribute]
    if right < 0:
        return MISSING
    return _neighbours(ctx, asked, state, records, row, right, np.empty(0, np.int32))


@inner
def matched_value(ctx, asked, state, records, row):
    """v2, level matched."""
    if asked.attribute < 0:
        return MISSING
    basket = _next_basket(ctx, asked)
    right = basket[below(state, len(basket))]
    if right < 0:
        return MISSING
    return _neighbours(ctx, asked, state, records, row, right, basket)


@inner
def _next_basket(ctx, asked):
    """Codes int32 of the basket that begins at the cut."""
    end = basket_end(ctx.starts, asked.hi, ctx.offsets[asked.user + 1])
    return gather(ctx.codes, asked.attribute, ctx.items[asked.hi : end])


@inner
def _neighbours(ctx, asked, state, records, row, right, also_right):
    """Four neighbours in `Context.order`, all of which occur in the history equally often.

    The order is by category (titles), by how often a value comes next in training, then by popularity. The right
    answer's rank among the four is drawn, so that neither popularity nor "bought before" says which one is right.
    `also_right`: codes that must not be wrong options.
    """
    attribute = asked.attribute
    codes = gather(ctx.codes, attribute, ctx.items[asked.lo : asked.hi])
    seen = occurrences(codes, right)
    rank = below(state, OPTIONS)
    options, base = records.values[row], ctx.base[attribute]
    options[0, 0] = right
    if seen == 0:
        enough = _unseen_neighbours(ctx, base, right, rank, codes, also_right, options)
    else:
        like, own = _seen_alike(ctx, base, right, seen, codes, also_right, asked.tallies)
        enough = _seen_neighbours(ctx, like, own, rank, options)
        if len(like) < OPTIONS and len(also_right) <= 1:  # the right answer is not drawn, so no other draw finds more
            asked.settled[attribute] = NOT_ENOUGH
    if not enough:
        return NOT_ENOUGH
    _finish(ctx, state, records, row, attribute, rank)
    return ACCEPTED


@inner
def _finish(ctx, state, records, row, attribute, rank):
    options, base = records.values[row], ctx.base[attribute]
    group = attribute * SPREADS + spread_of(option_sums(ctx.following, base, options))
    popularity_rank = rank_of_first(state, option_sums(ctx.popularity, base, options))
    finish(state, records, row, 0, attribute, group, rank, popularity_rank)


@inner
def _unseen_neighbours(ctx, base, right, rank, codes, also_right, out):
    """Write `rank` values before `right` in the order and the rest after it, none of which the history has; False if
    there are too few."""
    found = 0
    for direction, wanted in ((-1, rank), (1, OPTIONS - 1)):
        index = ctx.rank[base + right] + direction
        while found < wanted and ctx.group_lo[base + right] <= index < ctx.group_hi[base + right]:
            code = ctx.order[index]
            if not holds(codes, code) and not holds(also_right, code):
                found += 1
                out[found, 0] = code
            index += direction
        if found < wanted:
            return False
    return True


@inner
def _seen_alike(ctx, base, right, seen, codes, also_right, tallies):
    """(places in the order, ascending, of the values that occur in the history as often as `right`, `seen` times; which
    of them is that of `right`)"""
    wanted = occurrence_class(seen)
    values, counts = count_codes(codes, tallies)
    indices = np.empty(len(values), np.int64)
    size = 0
    for i in range(len(values)):
        index = ctx.rank[base + values[i]]
        if values[i] != right and holds(also_right, values[i]):
            continue
        if occurrence_class(counts[i]) == wanted and ctx.group_lo[base + right] <= index < ctx.group_hi[base + right]:
            indices[size] = index
            size += 1
    indices = np.sort(indices[:size])
    return indices, np.searchsorted(indices, ctx.rank[base + right])


@inner
def _seen_neighbours(ctx, like, own, rank, out):
    """The same among the values of `_seen_alike`."""
    first = own - rank
    if first < 0 or first + OPTIONS > len(like):
        return False
    found = 0
    for i in range(first, first + OPTIONS):
        if i != own:
            found += 1
            out[found, 0] = ctx.order[like[i]]
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


@inner
def natural_value(ctx, asked, state, records, row):
    """v2, level natural.

    Wrong options come from the next baskets of other training users in the same period, each drawn as the right one
    was: a user, one of the user's cuts, an item. So the four are exchangeable to one who has no history.

    They share a class of like frequency, whose bounds are drawn anew for each candidate: fixed bounds would show, at
    the edges of a class, which options can be wrong.
    """
    attribute = asked.attribute
    if attribute < 0:
        return MISSING
    basket = _next_basket(ctx, asked)
    right = basket[below(state, len(basket))]
    if right < 0:
        return MISSING
    if len(ctx.train_users) == 0:
        return NOT_ENOUGH
    options, base = records.values[row], ctx.base[attribute]
    options[0, 0] = right
    shift = below(state, 1 << 20) / (1 << 20)
    wanted = _frequency_class(ctx.following[base + right], shift)
    for option in range(1, OPTIONS):
        code = np.int32(-1)
        for _ in range(TRIES):
            drawn = _taken_by_another(ctx, asked, state, attribute)
            if drawn >= 0 and _frequency_class(ctx.following[base + drawn], shift) == wanted:
                code = drawn
                break
        if code < 0:
            return NOT_ENOUGH
        if holds(basket, code):
            return SAME
        options[option, 0] = code
    if any_equal(options):
        return SAME
    _finish(ctx, state, records, row, attribute, rank_of_first(state, option_sums(ctx.following, base, options)))
    return ACCEPTED


@inner
def _frequency_class(count, shift):
    """Counts of one class differ by less than a factor of two."""
    return np.int64(np.floor(np.log2(count + 1.0) + shift))


@inner
def _taken_by_another(ctx, asked, state, attribute):
    """Code of an item of a next basket of another training user in the same period; -1 if the draw has none."""
    drawn = below(state, len(ctx.train_users))
    if ctx.train_users[drawn] == asked.user:
        return np.int32(-1)
    cuts = ctx.train_cuts[ctx.train_bounds[drawn] : ctx.train_bounds[drawn + 1]]
    first, last = 0, len(cuts)
    if len(ctx.times) > 0:
        now = ctx.times[asked.hi]
        first = _first_not_before(ctx.times, cuts, now - ctx.period)
        last = _first_not_before(ctx.times, cuts, now + ctx.period + 1)
    if first >= last:
        return np.int32(-1)
    row = cuts[first + below(state, last - first)]
    end = basket_end(ctx.starts, row, ctx.offsets[ctx.train_users[drawn] + 1])
    return ctx.codes[ctx.items[row + below(state, end - row)], attribute]


@inner
def _first_not_before(times, rows, time):
    """Index of the first of `rows`, in order of time, that is not before `time`."""
    lo, hi = 0, len(rows)
    while lo < hi:
        middle = (lo + hi) // 2
        if times[rows[middle]] < time:
            lo = middle + 1
        else:
            hi = middle
    return lo


def _first_text(evidence: Evidence) -> list[list[str | None]]:
    return [[evidence.following[0]]]


def _any_text(evidence: Evidence) -> list[list[str | None]]:
    return [[text] for text in evidence.following]


def _title_kind(name, answers, level=""):
    return Kind(
        name=name,
        subtask="ip",
        attributes=("title",),
        answers=answers,
        level=level,
        wording="ip_next",
        allowed=needs("attribute"),
    )


def _attribute_kind(name, answers, level=""):
    return Kind(
        name=name,
        subtask="ap",
        attributes=SIDE,
        answers=answers,
        level=level,
        wording="ap_next",
        needed=(needs("attribute"),),
    )


def _family(kind, generate, version):
    return Family(
        kinds=(kind,),
        file=__file__,
        generate=generate,
        draw_attribute=title if kind.subtask == "ip" else side_attribute,
        versions=(version,),
    )


TITLE_FAMILY = _family(_title_kind("ip_next", _first_text), first_value, "v1")
ATTRIBUTE_FAMILY = _family(_attribute_kind("ap_next", _first_text), first_value, "v1")
LEVEL_FAMILIES = (
    _family(_title_kind("ip_natural", _any_text, "natural"), natural_value, "v2"),
    _family(_title_kind("ip_matched", _any_text, "matched"), matched_value, "v2"),
    _family(_attribute_kind("ap_natural", _any_text, "natural"), natural_value, "v2"),
    _family(_attribute_kind("ap_matched", _any_text, "matched"), matched_value, "v2"),
)
