"""li, long-term interest: the three most frequent values of the history, the most frequent first."""

from __future__ import annotations

import numpy as np

from uqabench.questions.core.attributes import side_attribute
from uqabench.questions.core.compiled import inner
from uqabench.questions.core.context import ACCEPTED, FEW, MISSING, TIE
from uqabench.questions.core.histories import count_codes, gather
from uqabench.questions.core.pool import (
    CLASSIFICATIONS,
    draw_from_pool,
    finish_pooled,
    keep_answer,
    kept_answer,
    not_drawn,
    settled_state,
)
from uqabench.questions.core.rng import below
from uqabench.questions.declaration import LONGEST_ANSWER, SIDE, Family, Kind, most_frequent, needs

KIND = Kind(
    name="li_top3",
    subtask="li",
    attributes=SIDE,
    answers=lambda evidence: most_frequent(evidence.texts, LONGEST_ANSWER),
    ordered=True,
    needed=(needs("attribute"),),
)


@inner
def long_term_interest(ctx, asked, state, records, row):
    """Wrong options are top threes of other training histories that share, as drawn, one value or none with it."""
    attribute = asked.attribute
    if attribute < 0:
        return MISSING
    values, lengths = records.values[row], records.lengths[row]
    lengths[0] = kept_answer(asked, attribute, values[0])
    if lengths[0] == 0:
        codes = gather(ctx.codes, attribute, ctx.items[asked.lo : asked.hi])
        status, lengths[0] = top_three(ctx, codes, ctx.starts[asked.lo : asked.hi], values[0], asked.tallies)
        if status != ACCEPTED:
            asked.settled[attribute] = status
            return status
        keep_answer(ctx, asked, attribute, values[0], lengths[0])
    classification = below(settled_state(ctx, asked, attribute), CLASSIFICATIONS)
    drawn = not_drawn()
    status = draw_from_pool(ctx, asked, state, records, row, attribute, classification, drawn)
    if status != ACCEPTED:
        return status
    return finish_pooled(ctx, asked, state, records, row, attribute, False, drawn)


@inner
def top_three(ctx, codes, starts, out, tallies):
    """Write the three most frequent codes; TIE where their order or the third place is open."""
    values, counts = count_codes(codes, tallies)
    if len(values) < LONGEST_ANSWER:
        return FEW, 0
    most = np.zeros(LONGEST_ANSWER + 1, np.int64)
    for i in range(len(values)):
        if counts[i] <= most[LONGEST_ANSWER]:
            continue
        place = LONGEST_ANSWER
        while place > 0 and counts[i] > most[place - 1]:
            most[place] = most[place - 1]
            if place < LONGEST_ANSWER:
                out[place] = out[place - 1]
            place -= 1
        most[place] = counts[i]
        if place < LONGEST_ANSWER:
            out[place] = values[i]
    for rank in range(LONGEST_ANSWER):
        if most[rank] == most[rank + 1]:
            return TIE, 0
    return ACCEPTED, LONGEST_ANSWER


FAMILY = Family(
    kinds=(KIND,), file=__file__, generate=long_term_interest, draw_attribute=side_attribute, right_answer=top_three
)
