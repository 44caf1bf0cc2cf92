"""The four options of a candidate: whether they are distinct, how the right one ranks, which letter each gets."""

from __future__ import annotations

import numpy as np

from uqabench.questions.core.compiled import inner
from uqabench.questions.core.rng import below
from uqabench.questions.declaration import LONGEST_ANSWER, OPTIONS, PHRASING_CYCLE

SPREADS = 5


@inner
def any_equal(values):
    """Whether two of the four options are equal; values int32 (4, 3), padded with -1."""
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
def option_sums(flat, base, values):
    """int64 (4,): the sum of a flat array (see `Context`) over the codes of each option."""
    out = np.zeros(OPTIONS, np.int64)
    for i in range(OPTIONS):
        for c in range(LONGEST_ANSWER):
            if values[i, c] >= 0:
                out[i] += flat[base + values[i, c]]
    return out


@inner
def rank_of_first(state, keys):
    """Rank 0..3 of option 0 by its key among keys int64 (4,); equal keys are ordered at random."""
    less, equal = 0, 0
    for i in range(1, OPTIONS):
        less += keys[i] < keys[0]
        equal += keys[i] == keys[0]
    return less + below(state, equal + 1)


@inner
def spread_of(counts):
    """How unequal the training counts of four options are, as a class 0..SPREADS-1.

    The ranks of right answers are balanced among questions of the same class. Where one option is far more frequent
    than the others (the top of a category, an unchanged interest) it is mostly right. Balanced over all questions
    alike, it would be right too often there and too seldom elsewhere, which a learner can tell apart.
    """
    spread, ratio = 0, 1.5
    largest, smallest = counts.max(), counts.min()
    while spread < SPREADS - 1 and largest + 1 >= ratio * (smallest + 1):
        ratio *= 1.7
        spread += 1
    return spread


@inner
def finish(state, records, row, kind, attribute, group, rank, popularity_rank):
    """Write what all candidates have, and shuffle the options, of which the first has been the right one so far."""
    records.kind[row] = kind
    records.attribute[row] = attribute
    records.group[row] = group
    records.ranks[row, 0] = rank
    records.ranks[row, 1] = popularity_rank
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
