"""Which candidates become questions: users take turns, and a candidate is made when somebody's turn asks for it.

Candidates wait in a list for each user, in the order in which they were made, until their turn. How many a user may try
grows by BATCH at a time; of these only as many are made as it takes to find one that fits, which changes nothing of
what is chosen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from uqabench.questions.core.compiled import inner
from uqabench.questions.core.context import Records
from uqabench.questions.declaration import ASKED, LONGEST_ANSWER, OPTIONS

ATTRIBUTES = len(ASKED)
BATCH = 12
"""Candidates by which a user's tries grow at a time."""
BLOCK = 4096
"""Users whose turns come together: all who have nothing that fits try BATCH more before the next block begins."""
GROUPS = 1 << 16
"""Groups of questions whose right answers are balanced apart: any int16."""


class Waiting(NamedTuple):
    """Candidates by row: their records, cuts, whether the answer lists a single value, and the next of the same user
    (-1: none). Rows that are free are linked in the same way."""

    records: Records
    cut: np.ndarray  # int32 (M,)
    single: np.ndarray  # bool (M,)
    after: np.ndarray  # int64 (M,)


class Answers(NamedTuple):
    """Right answers of the histories of a block of users; see `Asked`."""

    values: np.ndarray  # int32 (BLOCK, C, 4, 3)
    lengths: np.ndarray  # int8 (BLOCK, C, 4)
    rows: np.ndarray  # int64 (BLOCK, C, 4)


@inner
def answers_of_block(columns):
    """`Answers` for users with that many cuts."""
    shape = (BLOCK, columns, ATTRIBUTES)
    values = np.empty((BLOCK, columns, ATTRIBUTES, LONGEST_ANSWER), np.int32)
    return Answers(values, np.zeros(shape, np.int8), np.empty(shape, np.int64))


@inner
def waiting_rows(size):
    """`Waiting` with room for `size` candidates."""
    records = Records(
        np.full(size, -1, np.int8),
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
    return Waiting(records, np.zeros(size, np.int32), np.zeros(size, np.bool_), np.full(size, -1, np.int64))


@inner
def larger(waiting):
    """The same rows in arrays twice as long."""
    size = len(waiting.cut)
    out = waiting_rows(2 * size)
    for row in range(size):
        copy_record(waiting.records, row, out.records, row)
    out.cut[:size] = waiting.cut
    out.single[:size] = waiting.single
    out.after[:size] = waiting.after
    return out


@inner
def copy_record(source, row, target, place):
    """Copy one candidate from row to place."""
    target.status[place] = source.status[row]
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
def clear_record(records, row):
    """What a generator may take for granted of the row that it writes into."""
    for i in range(OPTIONS):
        records.params[row, i] = 0
        records.lengths[row, i] = 1
        for c in range(LONGEST_ANSWER):
            records.values[row, i, c] = -1


@inner
def column_of(main, extra_at, per_cut, stream, user, attempt):
    """Where an attempt's cut stands: the main ones in turns until their attempts are used up, then one extra cut after
    the other.

    Where the turns begin differs by user and family, so that none is about early histories alone.
    """
    beyond = attempt - main * per_cut
    if beyond < 0:
        return (attempt + stream + user) % main
    return extra_at + beyond // per_cut


@inner
def same_question(a, i, cut_a, b, j, cut_b):
    """Whether two candidates for one user ask the same thing."""
    if cut_a != cut_b or a.kind[i] != b.kind[j] or a.attribute[i] != b.attribute[j]:
        return False
    for p in range(OPTIONS):
        if a.params[i, p] != b.params[j, p]:
            return False
    return True


@inner
def in_balance(ranks, records, row, slack):
    """Whether the ranks of a candidate's right answer are among the least frequent of its group so far."""
    group = np.int64(records.group[row]) + GROUPS // 2
    first, second = records.ranks[row, 0], records.ranks[row, 1]
    if ranks[group, 0, first] - _least(ranks, group, 0) >= slack:
        return False
    return ranks[group, 1, second] - _least(ranks, group, 1) <= slack


@inner
def _least(ranks, group, which):
    """How often the least frequent rank of a group was right so far."""
    out = ranks[group, which, 0]
    for rank in range(1, OPTIONS):
        out = min(out, ranks[group, which, rank])
    return out


@inner
def already_asked(taken, taken_cut, earlier, last, records, row, cut):
    """Whether a question that a user was given (`last`, and the `earlier` one of each) asks the same."""
    while last >= 0:
        if same_question(taken, last, taken_cut[last], records, row, cut):
            return True
        last = earlier[last]
    return False


@inner
def left_waiting(waiting, head, taken, taken_cut, earlier, last, skip_single):
    """How many different questions wait that were not asked; `skip_single`: those with an answer of one value do not
    count."""
    found = 0
    for user in range(len(head)):
        row = head[user]
        while row >= 0:
            counts = not (skip_single and waiting.single[row])
            counts = counts and not already_asked(
                taken, taken_cut, earlier, last[user], waiting.records, row, waiting.cut[row]
            )
            other = head[user]
            while counts and other != row:
                counts = not same_question(
                    waiting.records, other, waiting.cut[other], waiting.records, row, waiting.cut[row]
                )
                other = waiting.after[other]
            found += counts
            row = waiting.after[row]
    return found
