"""Candidates that wait for their turn, of each user in the order in which they were tried.

Of a candidate only what decides whether it is taken is kept, 24 bytes; its options are made again when it is taken,
since of those that wait few ever are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from uqabench.questions.core.compiled import inner

CHUNK = 12
"""Entries of one user that lie side by side."""
WAITS, PUT_OFF, GONE = range(3)
"""States of an entry. PUT_OFF: what it asks was not drawn, since nothing that it could ask fits; its `group` is the
attribute. GONE: taken, or no question."""

ENTRY = np.dtype(
    [
        ("question", np.uint64),
        ("attempt", np.int64),
        ("group", np.int16),
        ("rank", np.int8),
        ("popularity_rank", np.int8),
        ("is_single", np.bool_),
        ("state", np.int8),
    ],
    align=True,
)
"""What is kept of a candidate. question: a digest of what it asks; is_single: the right answer lists one value, and
those are limited; the others: see `context.Records`."""

USER = np.dtype(
    [
        ("first", np.int64),
        ("last", np.int64),
        ("given", np.int64),
        ("size", np.int64),
        ("sure", np.int64),
        ("put_off", np.int64),
        ("made", np.int64),
        ("used", np.int64),
        ("limit", np.int64),
    ],
    align=True,
)
"""A user's first and last chunk and the question given last (-1: none); how many entries there are, how many of them
wait and were put off; how many attempts were made, are allowed so far and in all."""


class Waiting(NamedTuple):
    """Entries of n users in linked chunks."""

    users: np.ndarray  # USER (n,)
    entries: np.ndarray  # ENTRY (M, CHUNK)
    after: np.ndarray  # int64 (M,): the same user's next chunk
    used: np.ndarray  # int64 (1,): how many chunks belong to somebody


@inner
def nothing_waits(limits):
    """`Waiting` without entries, of users with these limits int64 (n,)."""
    users = np.zeros(len(limits), USER)
    for i in range(len(limits)):
        users[i].first, users[i].last, users[i].given = -1, -1, -1
        users[i].limit = limits[i]
    return Waiting(users, np.empty((64, CHUNK), ENTRY), np.empty(64, np.int64), np.zeros(1, np.int64))


@inner
def with_room(waiting, entries):
    """The same, with room for that many entries more of one user."""
    size = len(waiting.after)
    if waiting.used[0] + 1 + entries // CHUNK < size:
        return waiting
    larger, after = np.empty((2 * size, CHUNK), ENTRY), np.empty(2 * size, np.int64)
    larger[:size] = waiting.entries
    after[:size] = waiting.after
    return Waiting(waiting.users, larger, after, waiting.used)


@inner
def new_entry(waiting, i, attempt, state):
    """(chunk, place) of an entry added behind the others of user i; there has to be room."""
    user = waiting.users[i]
    place = user.size % CHUNK
    if place == 0:
        chunk = waiting.used[0]
        waiting.used[0] += 1
        if user.first < 0:
            user.first = chunk
        else:
            waiting.after[user.last] = chunk
        user.last = chunk
    user.size += 1
    entry = waiting.entries[user.last, place]
    entry.attempt, entry.state = attempt, state
    if state == WAITS:
        user.sure += 1
    else:
        user.put_off += 1
    return user.last, place


@inner
def first_put_off(waiting, i):
    """(attempt, chunk, place) of the first entry of user i that was put off, of which there is one."""
    chunk, place = waiting.users[i].first, np.int64(0)
    while waiting.entries[chunk, place].state != PUT_OFF:
        place += 1
        if place == CHUNK:
            chunk, place = waiting.after[chunk], np.int64(0)
    return waiting.entries[chunk, place].attempt, chunk, place
