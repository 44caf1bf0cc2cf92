"""The four options of a candidate: are they distinct, where does the right one stand, which letter does it get."""

from __future__ import annotations

import numpy as np

from uqabench.questions.core.compiled import inner
from uqabench.questions.core.rng import below
from uqabench.questions.kinds import LONGEST_ANSWER, OPTIONS, PHRASING_CYCLE

SPREADS = 5


@inner
def repeated(values):
    """Whether two rows of (4, 3) padded lists are equal."""
    for i in range(OPTIONS):
        for j in range(i):
            equal = True
            for c in range(LONGEST_ANSWER):
                if values[i, c] != values[j, c]:
                    equal = False
            if equal:
                return True
    return False


@inner
def summed(flat, base, values):
    """int64 (4,): the sum of a flat per-value quantity over each option's codes."""
    out = np.zeros(OPTIONS, np.int64)
    for i in range(OPTIONS):
        for c in range(LONGEST_ANSWER):
            if values[i, c] >= 0:
                out[i] += flat[base + values[i, c]]
    return out


@inner
def standing(state, keys):
    """Place 0..3 of option 0 by keys int64 (4,); equals are ordered at random."""
    less, equal = 0, 0
    for i in range(1, OPTIONS):
        less += keys[i] < keys[0]
        equal += keys[i] == keys[0]
    return less + below(state, equal + 1)


@inner
def spread_of(counts):
    """How unequal the training counts of four options are, 0..SPREADS-1.

    The right answer's places are balanced among questions of like spread. Where one option dwarfs the others (the top
    of a category, an unchanged interest) it is mostly right; balanced over all questions alike, it would be right too
    often there and too seldom elsewhere, which a learner can tell apart.
    """
    spread, ratio = 0, 1.5
    while spread < SPREADS - 1 and counts.max() + 1 >= ratio * (counts.min() + 1):
        ratio *= 1.7
        spread += 1
    return spread


@inner
def finish(state, records, row, kind, attribute, group, level, popular):
    """Fill in what is common to all candidates, and give the options, right one first so far, their letters."""
    records.kind[row] = kind
    records.attribute[row] = attribute
    records.group[row] = group
    records.levels[row, 0] = level
    records.levels[row, 1] = popular
    records.template[row] = below(state, PHRASING_CYCLE)
    values, lengths = records.values[row], records.lengths[row]
    answer = 0
    for i in range(OPTIONS - 1, 0, -1):
        j = below(state, i + 1)
        if answer == i:
            answer = j
        elif answer == j:
            answer = i
        for c in range(LONGEST_ANSWER):
            values[i, c], values[j, c] = values[j, c], values[i, c]
        lengths[i], lengths[j] = lengths[j], lengths[i]
    records.answer[row] = answer
