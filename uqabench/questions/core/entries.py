"""What Python calls of the compiled code. Machine code is kept on disk from one process to the next.

Numba notices a change in the file of a function that it finds on disk, but not in the files of the functions which that
one calls. Hence only these entries are kept, with all that they call compiled into them; and each closes over a digest
of all the sources, which makes it part of the key under which numba keeps them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from uqabench.data.jit import jit
from uqabench.questions import declaration
from uqabench.questions.core import histories
from uqabench.questions.core.attempts import (
    allowed_attempts,
    clear_record,
    column_of,
    new_records,
)
from uqabench.questions.core.balance import loosen, new_balance, open_all, rare_groups
from uqabench.questions.core.compiled import borrowed
from uqabench.questions.core.context import ACCEPTED, TOO_RARE, Asked
from uqabench.questions.core.histories import gather
from uqabench.questions.core.pool import enter_answer
from uqabench.questions.core.rng import keyed
from uqabench.questions.core.turns import (
    BATCH,
    BLOCK,
    Made,
    begin_turn,
    is_taken,
    left_waiting,
    may_try_more,
    new_turns,
    next_to_make,
)
from uqabench.questions.core.waiting import nothing_waits, with_room
from uqabench.questions.declaration import LONGEST_ANSWER, Family

_choose_cuts, _count_next_items = histories.choose_cuts, histories.count_next_items
_KINDS = Path(__file__).parents[1] / "kinds"


def _digest(family: Family | None = None) -> int:
    """A non-zero digest of every file that holds compiled code, and of which family an entry serves."""
    files = [*sorted(Path(__file__).parent.glob("*.py")), *sorted(_KINDS.glob("*.py")), Path(declaration.__file__)]
    parts = [file.read_bytes() for file in files]
    if family is not None:
        parts += [Path(family.file).read_bytes(), " ".join(kind.name for kind in family.kinds).encode()]
    return int.from_bytes(hashlib.sha256(b"\0".join(parts)).digest()[:7], "big") | 1


def _compile(function: Callable[..., Any], **names: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` with the given compiled functions as global names of its own.

    As closure variables they would be part of numba's key, in which a compiled function is new in every process.
    """
    bound = FunctionType(
        function.__code__, {**function.__globals__, **names}, function.__name__, None, function.__closure__
    )
    bound.__qualname__, bound.__module__ = function.__qualname__, function.__module__
    return jit(bound)


@cache
def choice_of(family: Family) -> Callable[..., Any]:
    """choose(ctx, stream, pool, users, cuts, start, extra_at, per_cut, wanted, singles, strict, answers, tallies,
    outcomes, taken, taken_cut, owner) → (taken, turn, loose, left) with the family's generator.

    It writes the chosen candidates into the first rows of `taken` (`Records` of `wanted` rows), their cuts into
    taken_cut and the index of their user in `users` into owner, both int64 (wanted,), and counts in outcomes int64 how
    many candidates came to what. users (n,) in the order of their turns, of which that with index `start` is first;
    cuts (n, C): the main ones before column `extra_at`, -1: none. answers: `Answers` that are known. tallies: see
    `histories.count_codes`. `singles`: at most so many answers of a single value, -1: they are not told apart.
    `strict`: the balance is never loosened. It returns how many it chose, the index of the user whose turn is next, how
    many of them were out of balance, and how many different questions were left for the balance's sake (strict only).

    Candidate (user, cut, attempt) depends on (ctx.seed, stream, user, cut, attempt) alone. Histories are
    h = s[max(0, cut - N) : cut].
    """
    sources = _digest(family)

    def choose(ctx, stream, pool, users, cuts, start, extra_at, per_cut, wanted, singles, strict, answers, tallies,
               outcomes, taken, taken_cut, owner):  # fmt: skip
        assert sources
        ctx, answers, taken = borrowed(ctx), borrowed(answers), borrowed(taken)  # the caller keeps them
        tallies, outcomes = borrowed(tallies), borrowed(outcomes)
        n = len(users)
        main, every = allowed_attempts(cuts, extra_at, per_cut)
        state = np.empty(1, np.uint64)
        # What is borrowed in the loops stays, since they name it again.
        kept_balance = new_balance(singles, rare_groups(ctx, pool, singles >= 0))
        kept_turns, kept_record = new_turns(taken, taken_cut), new_records(1)
        kept_waiting = nothing_waits(main * per_cut)
        pending = np.empty(BLOCK, np.int64)
        kept_unclosed = np.zeros(len(kept_balance.closed), np.bool_)
        found, loose = 0, 0
        opened = False
        while True:
            before = found
            record = borrowed(kept_record)
            balance, turns, unclosed = borrowed(kept_balance), borrowed(kept_turns), borrowed(kept_unclosed)
            size = min(BLOCK, max(64, wanted - before))
            for first in range(0, n, size):
                m = min(size, n - first)
                for p in range(m):
                    pending[p] = (start + first + p) % n
                while m > 0:
                    still = 0
                    for p in range(m):
                        i = pending[p]
                        kept_waiting = with_room(kept_waiting, 2 * BATCH)
                        waiting = borrowed(kept_waiting)
                        begin_turn(turns)
                        while True:
                            made = next_to_make(turns, balance, waiting, i)
                            if made[0] < 0:
                                if may_try_more(waiting, i):
                                    pending[still] = i
                                    still += 1
                                break
                            attempt = made[0]
                            column = column_of(main[i], extra_at, per_cut, stream - 1, users[i], attempt)
                            cut = np.int64(cuts[i, column])
                            hi = ctx.offsets[users[i]] + cut
                            state[0] = keyed(ctx.seed, stream, users[i], cut, attempt)
                            attribute = draw_attribute(ctx, state)  # noqa: F821
                            closed = balance.closed if made[1] < 0 else unclosed
                            if attribute >= 0 and answers.settled[column, i, attribute] != ACCEPTED:
                                outcome = np.int64(answers.settled[column, i, attribute])
                            elif attribute >= 0 and closed[attribute] and answers.rare[column, i, attribute]:
                                outcome = np.int64(TOO_RARE)
                            else:
                                asked = Asked(
                                    users[i], cut, hi - min(cut, ctx.n_history), hi, attribute, pool,
                                    answers.settled[column, i], answers.values[column, i], answers.lengths[column, i],
                                    answers.rows[column, i], answers.rare[column, i], closed, tallies,
                                )  # fmt: skip
                                clear_record(record)
                                outcome = np.int64(generate(ctx, asked, state, record, 0))  # noqa: F821
                            candidate = Made(attempt, made[1], made[2], cut, attribute, outcome)
                            if is_taken(turns, balance, waiting, i, candidate, record, outcomes, found):
                                owner[found] = i
                                loose += balance.slack[0] > 1
                                found += 1
                                if found == wanted:
                                    return found, (i + 1) % n, loose, 0
                                break
                    m = still
            if found > before:
                continue
            if not opened and (main * per_cut < every).any():
                for i in range(n):
                    kept_waiting.users[i].limit = every[i]
                opened = True
            elif not strict and kept_balance.slack[0] <= wanted:
                loosen(kept_balance)
            elif outcomes[TOO_RARE] > 0:
                open_all(kept_balance)  # nothing fits, but what was put off is made, so that it counts as what it is
            else:
                left = left_waiting(kept_turns, kept_balance, kept_waiting) if strict else 0
                return found, start, loose, left

    return _compile(choose, generate=family.generate, draw_attribute=family.draw_attribute)


@cache
def answers_of(family: Family) -> Callable[..., None]:
    """right_answers(ctx, attribute, users, cuts, tallies, values, lengths) with the family's rule.

    It writes the answers of many histories into values int32 (n, 3) and lengths int8 (n,), which stays 0 where there is
    none. tallies: see `histories.count_codes`.
    """
    sources = _digest(family)

    def right_answers(ctx, attribute, users, cuts, tallies, values, lengths):
        assert sources
        ctx, tallies = borrowed(ctx), borrowed(tallies)  # the caller keeps them
        for i in range(len(users)):
            hi = ctx.offsets[users[i]] + cuts[i]
            lo = hi - min(cuts[i], ctx.n_history)
            out = np.full(LONGEST_ANSWER, -1, np.int32)
            codes = gather(ctx.codes, attribute, ctx.items[lo:hi])
            status, length = right_answer(ctx, codes, ctx.starts[lo:hi], out, tallies)  # noqa: F821
            if status == ACCEPTED:
                values[i] = out
                lengths[i] = length

    return _compile(right_answers, right_answer=family.right_answer)


@cache
def answers_ahead(family: Family) -> Callable[..., None]:
    """find(ctx, pool, users, cuts, main, tallies, answers): enter the right answers of all users' main cuts, those
    before column `main`; see `choice_of`, which finds what it needs itself where nothing is known."""
    sources = _digest(family)

    def find(ctx, pool, users, cuts, main, tallies, answers):
        assert sources
        ctx, tallies, answers = borrowed(ctx), borrowed(tallies), borrowed(answers)  # the caller keeps them
        value = np.empty(LONGEST_ANSWER, np.int32)
        for i in range(len(users)):
            for column in range(main):
                cut = np.int64(cuts[i, column])
                if cut < 0:
                    continue
                hi = ctx.offsets[users[i]] + cut
                lo = hi - min(cut, ctx.n_history)
                for attribute in ctx.side:
                    value[:] = -1
                    codes = gather(ctx.codes, attribute, ctx.items[lo:hi])
                    status, length = right_answer(ctx, codes, ctx.starts[lo:hi], value, tallies)  # noqa: F821
                    if status != ACCEPTED:
                        answers.settled[column, i, attribute] = status
                        continue
                    enter_answer(
                        ctx, pool, attribute, value, length, answers.values[column, i], answers.lengths[column, i],
                        answers.rows[column, i],
                    )  # fmt: skip

    return _compile(find, right_answer=family.right_answer)


def _shared(sources: int) -> tuple[Callable[..., Any], ...]:
    @jit
    def choose_cuts(starts, offsets, users, min_history, per_user, seed, salt):
        """Cuts int32 (len(users), per_user), ascending, -1 where a user has fewer positions to cut at.

        Such a position has min_history <= cut < length, and a basket begins there. One is drawn from each of `per_user`
        equal parts of a user's positions.
        """
        assert sources
        return _choose_cuts(starts, offsets, users, min_history, per_user, seed, salt)

    @jit
    def count_next_items(items, starts, offsets, users, min_history, n_items, by_basket):
        """int64 (n_items,): how often an item lies at a position where a history of `users` may be cut (`by_basket`: in
        a basket that begins at such a position)."""
        assert sources
        return _count_next_items(items, starts, offsets, users, min_history, n_items, by_basket)

    return choose_cuts, count_next_items


choose_cuts, count_next_items = _shared(_digest())
