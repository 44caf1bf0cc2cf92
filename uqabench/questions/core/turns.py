"""Which candidates become questions: users take turns, and a candidate is made when somebody's turn asks for it.

Candidates wait in a list for each user, in the order in which they were tried, until their turn. How many a user may
try grows by BATCH at a time; of these only as many are made as it takes to find one that fits, which changes nothing of
what is chosen. Nor does putting off what cannot fit: such a candidate waits unmade until something like it could.

A turn is `begin_turn`, then `next_to_make` and `is_taken` for what was made, until one is taken or none is left.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from uqabench.questions.core.attempts import copy_record
from uqabench.questions.core.balance import enter, in_balance
from uqabench.questions.core.compiled import inner
from uqabench.questions.core.context import ACCEPTED, TOO_RARE, Records
from uqabench.questions.core.rng import mix64
from uqabench.questions.core.waiting import CHUNK, GONE, PUT_OFF, WAITS, first_put_off, new_entry
from uqabench.questions.declaration import OPTIONS

BATCH = 12
"""Candidates by which a user's tries grow at a time."""
BLOCK = 4096
"""Users whose turns come together: all who have nothing that fits try BATCH more before the next block begins."""
_AT_FIRST, _WAITING, _NEW = range(3)
"""Parts of a turn: is there anything that waits; which of it fits; which new candidate fits."""
_PART, _INDEX, _CHUNK, _REFILLED = range(4)


class Turns(NamedTuple):
    """The turn that is going on, and what was taken so far."""

    cursor: np.ndarray  # int64 (4,): part of the turn, next entry to look at, its chunk, whether more was allowed
    taken: Records
    cut: np.ndarray  # int64: of each question taken, like the next two
    question: np.ndarray  # uint64: a digest of what it asks
    earlier: np.ndarray  # int64: the one that the same user was given before, -1: none


class Made(NamedTuple):
    """A candidate that was made: its attempt, its entry (chunk -1: none yet), cut, attribute and outcome."""

    attempt: int
    chunk: int
    place: int
    cut: int
    attribute: int
    outcome: int


@inner
def new_turns(taken, cut):
    """`Turns` before the first."""
    return Turns(np.zeros(4, np.int64), taken, cut, np.empty(len(cut), np.uint64), np.empty(len(cut), np.int64))


@inner
def begin_turn(turns):
    """A user's turn begins."""
    turns.cursor[_PART], turns.cursor[_INDEX], turns.cursor[_REFILLED] = _AT_FIRST, 0, False


@inner
def next_to_make(turns, balance, waiting, i):
    """(attempt, chunk, place) of the candidate of user i to be made next: of an entry, or a new one without an entry
    (chunk -1); attempt -1 if none fits."""
    user, cursor = waiting.users[i], turns.cursor
    if cursor[_PART] == _AT_FIRST:
        if user.made == user.used and user.sure == 0:
            if user.put_off > 0:
                return first_put_off(waiting, i)
            _allow_more(user)
            cursor[_REFILLED] = True
        cursor[_PART] = _WAITING
    if cursor[_PART] == _WAITING:
        chunk, place = _next_fitting(turns, balance, waiting, i)
        if chunk >= 0:
            return waiting.entries[chunk, place].attempt, chunk, place
        cursor[_PART] = _NEW
    if user.made == user.used:
        if cursor[_REFILLED] or user.used == user.limit or user.sure > 0:
            return np.int64(-1), np.int64(-1), np.int64(-1)
        if user.put_off > 0:
            return first_put_off(waiting, i)
        _allow_more(user)
        cursor[_REFILLED] = True
    user.made += 1
    return user.made - 1, np.int64(-1), np.int64(-1)


@inner
def is_taken(turns, balance, waiting, i, made, records, outcomes, found):
    """Whether the candidate that was made becomes the question with index `found`; if not, it waits or is gone.

    The candidate is in row 0 of `records`, unless it was put off.
    """
    chunk, place, user = made.chunk, made.place, waiting.users[i]
    if chunk < 0:
        chunk, place = _enter_new(balance, waiting, i, made, records, outcomes)
    elif waiting.entries[chunk, place].state == PUT_OFF:
        _enter_put_off(balance, waiting, i, made, records, outcomes)
        if turns.cursor[_PART] != _WAITING:
            return False  # it was made to know whether anything waits
    if chunk < 0 or waiting.entries[chunk, place].state != WAITS:
        return False
    entry = waiting.entries[chunk, place]
    if not _fits(turns, balance, user, entry):
        return False
    copy_record(records, 0, turns.taken, found)
    turns.cut[found], turns.question[found] = made.cut, entry.question
    turns.earlier[found], user.given = user.given, found
    enter(balance, records, 0, entry.is_single)
    entry.state = GONE
    user.sure -= 1
    return True


@inner
def may_try_more(waiting, i):
    """Whether user i, who has nothing that fits, may try more; then more is allowed."""
    user = waiting.users[i]
    if user.used == user.limit:
        return False
    _allow_more(user)
    return True


@inner
def left_waiting(turns, balance, waiting):
    """How many different questions wait that were not asked; those whose answer is one value do not count where there
    may be no more of them."""
    skips_singles = 0 <= balance.singles[1] <= balance.singles[0]
    found = 0
    for i in range(len(waiting.users)):
        user = waiting.users[i]
        digests = np.empty(user.size, np.uint64)
        size = 0
        chunk = user.first
        for e in range(user.size):
            if e > 0 and e % CHUNK == 0:
                chunk = waiting.after[chunk]
            entry = waiting.entries[chunk, e % CHUNK]
            counts = entry.state == WAITS and not (entry.is_single and skips_singles)
            if counts and not _already_asked(turns, user, entry.question):
                digests[size] = entry.question
                size += 1
        found += len(np.unique(digests[:size]))
    return found


@inner
def _allow_more(user):
    """Let a user try a batch more."""
    user.used = min(user.used + BATCH, user.limit)


@inner
def _next_fitting(turns, balance, waiting, i):
    """(chunk, place) of the next entry that fits, or that may fit once it is made; chunk -1 if there is none."""
    user, cursor = waiting.users[i], turns.cursor
    while cursor[_INDEX] < user.size:
        place = cursor[_INDEX] % CHUNK
        if place == 0:
            cursor[_CHUNK] = user.first if cursor[_INDEX] == 0 else waiting.after[cursor[_CHUNK]]
        cursor[_INDEX] += 1
        entry = waiting.entries[cursor[_CHUNK], place]
        if entry.state == PUT_OFF and not balance.closed[entry.group]:
            return cursor[_CHUNK], place
        if entry.state == WAITS and _fits(turns, balance, user, entry):
            return cursor[_CHUNK], place
    return np.int64(-1), np.int64(-1)


@inner
def _enter_new(balance, waiting, i, made, records, outcomes):
    """(chunk, place) of the entry of a new candidate, which waits or is put off; chunk -1: it came to nothing."""
    outcomes[made.outcome] += 1
    if made.outcome == TOO_RARE:
        chunk, place = new_entry(waiting, i, made.attempt, PUT_OFF)
        waiting.entries[chunk, place].group = made.attribute
        return chunk, np.int64(place)
    if made.outcome == ACCEPTED:
        chunk, place = new_entry(waiting, i, made.attempt, WAITS)
        _fill(balance, waiting.entries[chunk, place], records, made.cut)
        return chunk, np.int64(place)
    return np.int64(-1), np.int64(-1)


@inner
def _enter_put_off(balance, waiting, i, made, records, outcomes):
    """Enter what came of a candidate that was put off."""
    outcomes[TOO_RARE] -= 1
    outcomes[made.outcome] += 1
    user, entry = waiting.users[i], waiting.entries[made.chunk, made.place]
    user.put_off -= 1
    if made.outcome == ACCEPTED:
        user.sure += 1
        entry.state = WAITS
        _fill(balance, entry, records, made.cut)
    else:
        entry.state = GONE


@inner
def _fits(turns, balance, user, entry):
    """Whether a candidate that waits is in balance and asks something new."""
    if not in_balance(balance, entry.group, entry.rank, entry.popularity_rank, entry.is_single):
        return False
    return not _already_asked(turns, user, entry.question)


@inner
def _fill(balance, entry, records, cut):
    """Enter what decides about a candidate that waits from now on."""
    entry.group = records.group[0]
    entry.rank, entry.popularity_rank = records.ranks[0, 0], records.ranks[0, 1]
    entry.is_single = balance.singles[1] >= 0 and records.lengths[0, records.answer[0]] == 1
    digest = mix64(np.uint64(cut))
    digest = mix64(digest + np.uint64(records.kind[0]))
    digest = mix64(digest + np.uint64(records.attribute[0]))
    for p in range(OPTIONS):
        digest = mix64(digest + np.uint64(records.params[0, p]))
    entry.question = digest


@inner
def _already_asked(turns, user, question):
    """Whether a user was given a question that asks the same."""
    last = user.given
    while last >= 0:
        if turns.question[last] == question:
            return True
        last = turns.earlier[last]
    return False
