"""Right answers of the histories that are asked about, found once and kept for all attempts at them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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
