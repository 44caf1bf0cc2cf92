"""it, interest trajectory: the most frequent value of each third of the history, equal neighbours merged.

In v2 the thirds are whole baskets: each boundary is moved to the nearest basket start (the earlier of two).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uqabench.questions.core.attributes import side_attribute
from uqabench.questions.core.compiled import inner
from uqabench.questions.core.context import ACCEPTED, FEW, MISSING, NO_CHANGE, NOT_ENOUGH, TIE
from uqabench.questions.core.histories import dominant, gather
from uqabench.questions.core.pool import (
    CLASSIFICATIONS,
    draw_from_pool,
    finish_pooled,
    keep_answer,
    kept_answer,
    not_drawn,
    settled_state,
)
from uqabench.questions.core.rng import below, chance
from uqabench.questions.declaration import SIDE, Evidence, Family, Kind, Word, needs, path

REVERSED = 0.35
"""Share of the histories whose wrong options are the right path reversed, another path, and that one reversed."""


def _by_item(evidence: Evidence) -> list[list[str]]:
    texts, size = evidence.texts, len(evidence.texts)
    return path([texts[: size // 3], texts[size // 3 : 2 * size // 3], texts[2 * size // 3 :]])


def _by_basket(evidence: Evidence) -> list[list[str]]:
    size, starts = 0, [0]
    for basket in evidence.baskets:
        size += len(basket)
        starts.append(size)
    first, second = (min(starts, key=lambda start: abs(3 * start - third * size)) for third in (1, 2))
    return path([evidence.texts[:first], evidence.texts[first:second], evidence.texts[second:]])


def _option_text(texts: Sequence[str], words: Mapping[str, Any]) -> str:
    return words["no_change"].format(value=texts[0]) if len(texts) == 1 else words["path_separator"].join(texts)


@inner
def interest_path(ctx, asked, state, records, row):
    """Wrong options are paths of other training histories that share, as drawn, one value or none with the right one;
    or the right path reversed, another path, and that one reversed."""
    attribute = asked.attribute
    if attribute < 0:
        return MISSING
    values, lengths = records.values[row], records.lengths[row]
    status, lengths[0] = ACCEPTED, kept_answer(asked, attribute, values[0])
    if lengths[0] == 0:
        codes = gather(ctx.codes, attribute, ctx.items[asked.lo : asked.hi])
        status, lengths[0] = path_of_thirds(ctx, codes, ctx.starts[asked.lo : asked.hi], values[0], asked.tallies)
        if status == ACCEPTED:
            keep_answer(ctx, asked, attribute, values[0], lengths[0])
    settled = settled_state(ctx, asked, attribute)
    if status == ACCEPTED and lengths[0] == 1 and not chance(settled, ctx.single_keep[asked.pool, attribute]):
        status = NO_CHANGE
    if status != ACCEPTED:
        asked.settled[attribute] = status
        return status
    classification = below(settled, CLASSIFICATIONS)
    drawn = not_drawn()
    if chance(settled, REVERSED):
        status = _reversals(ctx, state, asked.pool, attribute, values, lengths, drawn)
    else:
        status = draw_from_pool(ctx, asked, state, records, row, attribute, classification, drawn)
    if status != ACCEPTED:
        return status
    return finish_pooled(ctx, asked, state, records, row, attribute, lengths.min() == 1, drawn)


@inner
def path_of_thirds(ctx, codes, starts, out, tallies):
    """Write the path: the most frequent codes of consecutive thirds, equal neighbours merged."""
    bounds = _thirds(starts, ctx.by_basket)
    length = 0
    for third in range(3):
        code = dominant(codes[bounds[third] : bounds[third + 1]], tallies)
        if code < 0:
            return (FEW if code == -1 else TIE), 0
        if length == 0 or out[length - 1] != code:
            out[length] = code
            length += 1
    return ACCEPTED, length


@inner
def _thirds(starts, by_basket):
    """int64 (4,): where the thirds of a history begin, and its end."""
    size = len(starts)
    bounds = np.array([0, size // 3, 2 * size // 3, size])
    if by_basket:
        for third in (1, 2):
            nearest = 0
            for p in range(1, size + 1):
                if (p == size or starts[p]) and abs(3 * p - third * size) < abs(3 * nearest - third * size):
                    nearest = p
            bounds[third] = nearest
    return bounds


@inner
def _reversals(ctx, state, pool, attribute, values, lengths, drawn):
    """Write option 1, the right path reversed; option 2, another path of the pool; option 3, that one reversed; and
    the other's row."""
    start, _, end = ctx.class_bounds[pool, attribute, 0]
    if start >= end:
        return NOT_ENOUGH
    drawn[2] = ctx.class_index[start + below(state, end - start)]
    values[2] = ctx.pool_values[drawn[2]]
    lengths[2] = ctx.pool_lengths[drawn[2]]
    for option in (1, 3):
        length = lengths[option - 1]
        lengths[option] = length
        for c in range(length):
            values[option, c] = values[option - 1, length - 1 - c]
    return ACCEPTED


def _kind(name, answers):
    return Kind(
        name=name,
        subtask="it",
        attributes=SIDE,
        answers=answers,
        ordered=True,
        needed=(needs("attribute"),),
        option_text=_option_text,
    )


def _family(kind, version):
    return Family(
        kinds=(kind,),
        file=__file__,
        generate=interest_path,
        draw_attribute=side_attribute,
        versions=(version,),
        right_answer=path_of_thirds,
        single_limit=0.1,
        single_pool_share=0.08,
        words={"path_separator": Word(), "no_change": Word(needed=needs("value"))},
    )


FAMILY = _family(_kind("it_path", _by_item), "v1")
BASKETS_FAMILY = _family(_kind("it_baskets", _by_basket), "v2")
