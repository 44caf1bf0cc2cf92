"""si, short-term interest: the most frequent value of the last `window` items of the history.

In v2 the window is the fewest whole baskets that hold as many items as the setting says.
"""

from __future__ import annotations

import numpy as np

from uqabench.questions.core.attributes import side_attribute
from uqabench.questions.core.compiled import inner
from uqabench.questions.core.context import ACCEPTED, FEW, MISSING, NOT_ENOUGH, TIE
from uqabench.questions.core.histories import basket_ends, dominant, gather, recent_size
from uqabench.questions.core.pool import (
    draw_from_pool,
    finish_pooled,
    keep_answer,
    kept_answer,
    not_drawn,
    settled_state,
)
from uqabench.questions.core.rng import below, chance
from uqabench.questions.declaration import OPTIONS, SIDE, Family, Kind, most_frequent, needs

OWN_WINDOWS = 0.6
"""Share of the histories of four windows or more whose wrong options dominate other windows of the same history."""

KIND = Kind(
    name="si_recent",
    subtask="si",
    attributes=SIDE,
    params=("window",),
    answers=lambda evidence: most_frequent(evidence.texts[-evidence.params["window"] :], 1),
    needed=(needs("attribute"),),
    allowed=needs("window"),
)


@inner
def short_term_interest(ctx, asked, state, records, row):
    """Wrong options dominate other windows of the same history, or the recent window of other training histories."""
    attribute = asked.attribute
    if attribute < 0:
        return MISSING
    values, lengths = records.values[row], records.lengths[row]
    starts = ctx.starts[asked.lo : asked.hi]
    size = recent_size(starts, ctx.window, ctx.by_basket)
    lengths[0] = kept_answer(asked, attribute, values[0])
    if lengths[0] == 0:
        recent = gather(ctx.codes, attribute, ctx.items[asked.hi - size : asked.hi])
        status, lengths[0] = recent_interest(ctx, recent, starts[len(starts) - size :], values[0], asked.tallies)
        if status != ACCEPTED:
            asked.settled[attribute] = status
            return status
        keep_answer(ctx, asked, attribute, values[0], lengths[0])
    drawn = not_drawn()
    if len(starts) >= 4 * ctx.window and chance(settled_state(ctx, asked, attribute), OWN_WINDOWS):
        codes = gather(ctx.codes, attribute, ctx.items[asked.lo : asked.hi])
        status = _own_windows(ctx, asked, state, codes, starts, values)
    else:
        status = draw_from_pool(ctx, asked, state, records, row, attribute, 0, drawn)
    if status != ACCEPTED:
        return status
    records.params[row, 0] = size if ctx.by_basket else ctx.window
    return finish_pooled(ctx, asked, state, records, row, attribute, False, drawn)


@inner
def recent_interest(ctx, codes, starts, out, tallies):
    """Write the most frequent code of the recent ones."""
    code = dominant(codes[len(codes) - recent_size(starts, ctx.window, ctx.by_basket) :], tallies)
    if code < 0:
        return (FEW if code == -1 else TIE), 0
    out[0] = code
    return ACCEPTED, 1


@inner
def _own_windows(ctx, asked, state, codes, starts, values):
    """The dominant values of three other windows that end with a basket, before the recent window begins."""
    ends = basket_ends(starts)
    first = np.searchsorted(ends, ctx.window)
    recent = recent_size(starts, ctx.window, ctx.by_basket)
    last = np.searchsorted(ends, len(codes) - recent, side="right")
    if last - first < OPTIONS - 1:
        return NOT_ENOUGH
    for option in range(1, OPTIONS):
        end = ends[first + below(state, last - first)]
        code = dominant(codes[end - recent_size(starts[:end], ctx.window, ctx.by_basket) : end], asked.tallies)
        if code < 0:
            return TIE
        values[option, 0] = code
    return ACCEPTED


FAMILY = Family(
    kinds=(KIND,),
    file=__file__,
    generate=short_term_interest,
    draw_attribute=side_attribute,
    right_answer=recent_interest,
)
