"""One attempt at a question: at which of a user's cuts, and the candidate that it comes to."""

from __future__ import annotations

import numpy as np

from uqabench.questions.core.compiled import inner
from uqabench.questions.core.context import Records
from uqabench.questions.declaration import LONGEST_ANSWER, OPTIONS


@inner
def new_records(size):
    """`Records` of that many candidates."""
    return Records(
        np.full(size, -1, np.int16),
        np.full(size, -1, np.int8),
        np.zeros((size, 4), np.int32),
        np.full((size, OPTIONS, LONGEST_ANSWER), -1, np.int32),
        np.ones((size, OPTIONS), np.int8),
        np.full(size, -1, np.int8),
        np.full((size, 2), -1, np.int8),
        np.zeros(size, np.int16),
        np.zeros(size, np.int16),
    )


@inner
def copy_record(source, row, target, place):
    """Copy one candidate from row to place."""
    target.kind[place] = source.kind[row]
    target.attribute[place] = source.attribute[row]
    target.answer[place] = source.answer[row]
    target.group[place] = source.group[row]
    target.template[place] = source.template[row]
    for i in range(2):
        target.ranks[place, i] = source.ranks[row, i]
    for i in range(OPTIONS):
        target.params[place, i] = source.params[row, i]
        target.lengths[place, i] = source.lengths[row, i]
        for c in range(LONGEST_ANSWER):
            target.values[place, i, c] = source.values[row, i, c]


@inner
def clear_record(record):
    """What a generator may take for granted of the one row that it writes into."""
    for i in range(OPTIONS):
        record.params[0, i] = 0
        record.lengths[0, i] = 1
        for c in range(LONGEST_ANSWER):
            record.values[0, i, c] = -1


@inner
def allowed_attempts(cuts, extra_at, per_cut):
    """int64 (n,) and (n,): how many of each user's cuts are main ones, and how many attempts all of them allow."""
    main, every = np.zeros(len(cuts), np.int64), np.zeros(len(cuts), np.int64)
    for i in range(len(cuts)):
        for column in range(cuts.shape[1]):
            if cuts[i, column] >= 0:
                every[i] += per_cut
                main[i] += column < extra_at
    return main, every


@inner
def column_of(main, extra_at, per_cut, stream, user, attempt):
    """The column of an attempt's cut: the main ones in turns until their attempts are used up, then one extra cut after
    the other.

    Where the turns begin differs by user and family, so that none is about early histories alone.
    """
    beyond = attempt - main * per_cut
    if beyond < 0:
        return (attempt + stream + user) % main
    return extra_at + beyond // per_cut
