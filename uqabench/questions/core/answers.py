"""Right answers of the histories that are asked about, found once and kept for all attempts at them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from uqabench.questions.core.compiled import inner
from uqabench.questions.core.context import ACCEPTED
from uqabench.questions.core.pool import row_of
from uqabench.questions.declaration import ASKED, LONGEST_ANSWER

ATTRIBUTES = len(ASKED)


class Answers(NamedTuple):
    """What is known of the histories of n users, by column of their cuts; see `Asked`. Columns come first, so that
    those of cuts that are never opened take no memory."""

    settled: np.ndarray  # int8 (C, n, 4)
    values: np.ndarray  # int32 (C, n, 4, 3)
    lengths: np.ndarray  # int8 (C, n, 4)
    rows: np.ndarray  # int64 (C, n, 4)
    rare: np.ndarray  # bool (C, n, 4)


def nothing_known(users: int, columns: int) -> Answers:
    """`Answers` for that many users with that many cuts each, none of which was looked for."""
    shape = (columns, users, ATTRIBUTES)
    return Answers(
        settled=np.zeros(shape, np.int8),  # ACCEPTED
        values=np.zeros((*shape, LONGEST_ANSWER), np.int32),
        lengths=np.zeros(shape, np.int8),
        rows=np.zeros(shape, np.int64),
        rare=np.zeros(shape, bool),
    )


@inner
def enter_answer(ctx, pool, answers, column, i, attribute, status, length, value):
    """Enter what was found of a history: an answer, or why there is none."""
    if status != ACCEPTED:
        answers.settled[column, i, attribute] = status
        return
    for c in range(LONGEST_ANSWER):
        answers.values[column, i, attribute, c] = value[c]
    answers.lengths[column, i, attribute] = length
    answers.rows[column, i, attribute] = row_of(ctx, pool, attribute, value)
