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
from uqabench.questions.core.compiled import borrowed
from uqabench.questions.core.context import ACCEPTED, Asked
from uqabench.questions.core.histories import gather
from uqabench.questions.core.rng import keyed
from uqabench.questions.core.turns import (
    BATCH,
    BLOCK,
    GROUPS,
    already_asked,
    answers_of_block,
    clear_record,
    column_of,
    copy_record,
    in_balance,
    larger,
    left_waiting,
    waiting_rows,
)
from uqabench.questions.declaration import LONGEST_ANSWER, OPTIONS, Family

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
    """choose(ctx, stream, pool, users, cuts, extra_at, per_cut, wanted, singles, strict, settled, tallies, outcomes,
    taken, taken_cut, owner) → (taken, turn, loose, left) with the family's generator.

    It writes the chosen candidates into the first rows of `taken` (`Records` of `wanted` rows), their cuts into
    taken_cut and the index of their user in `users` into owner, both int64 (wanted,), and counts in outcomes int64 how
    many candidates came to what. users (n,) in the order of their turns; cuts (n, C): the main ones before column
    `extra_at`, -1: none. settled int8 (n, C, 4), all ACCEPTED: what becomes of `Asked.settled`. tallies: see
    `histories.count_codes`. `singles`: at most so many answers of a single value, -1: they are not told apart.
    `strict`: the balance is never loosened. It returns how many it chose, the index of the user whose turn is next, how
    many of them were out of balance, and how many different questions were left for the balance's sake (strict only).

    Candidate (user, cut, attempt) depends on (ctx.seed, stream, user, cut, attempt) alone. Histories are
    h = s[max(0, cut - N) : cut].
    """
    sources = _digest(family)

    def choose(ctx, stream, pool, users, cuts, extra_at, per_cut, wanted, singles, strict, settled, tallies, outcomes,
               taken, taken_cut, owner):  # fmt: skip
        assert sources
        ctx, settled, taken = borrowed(ctx), borrowed(settled), borrowed(taken)  # the caller keeps them
        tallies = borrowed(tallies)
        n = len(users)
        main = np.zeros(n, np.int64)
        every = np.zeros(n, np.int64)
        for i in range(n):
            for column in range(cuts.shape[1]):
                if cuts[i, column] >= 0:
                    every[i] += per_cut
                    main[i] += column < extra_at
        limit = main * per_cut
        used, made = np.zeros(n, np.int64), np.zeros(n, np.int64)
        head, tail, last = np.full(n, -1, np.int64), np.full(n, -1, np.int64), np.full(n, -1, np.int64)
        earlier = np.empty(wanted, np.int64)
        ranks = np.zeros((GROUPS, 2, OPTIONS), np.int32)
        kept = waiting_rows(1024)
        waiting = borrowed(kept)  # `kept` is named again in the loop and behind it, so the rows stay
        fresh, free = 0, np.int64(-1)  # rows from `fresh` on were never used; `free` heads the list of those given back
        pending = np.empty(BLOCK, np.int64)
        kept_answers = answers_of_block(cuts.shape[1])
        answers = borrowed(kept_answers)  # likewise named again in the loop
        state = np.empty(1, np.uint64)
        found, single, loose, slack = 0, 0, 0, 1
        opened = False
        while True:
            before = found
            size = min(BLOCK, max(64, wanted - before))
            for first in range(0, n, size):
                m = min(size, n - first)
                kept_answers.lengths[:m] = 0
                for i in range(m):
                    pending[i] = first + i
                while m > 0:
                    still = 0
                    for p in range(m):
                        i = pending[p]
                        user = users[i]
                        if head[i] < 0 and made[i] == used[i]:
                            used[i] = min(used[i] + BATCH, limit[i])
                            refilled = True
                        else:
                            refilled = False
                        row, previous, fits = head[i], np.int64(-1), False
                        while True:
                            if row < 0:  # nothing waits any more: make the next
                                if made[i] == used[i]:
                                    if head[i] >= 0 or refilled or used[i] == limit[i]:
                                        break
                                    refilled = True
                                    used[i] = min(used[i] + BATCH, limit[i])
                                    continue
                                if free >= 0:
                                    row = free
                                    free = waiting.after[row]
                                else:
                                    if fresh == len(waiting.cut):
                                        kept = larger(kept)
                                        waiting = borrowed(kept)
                                    row = fresh
                                    fresh += 1
                                attempt = made[i]
                                made[i] += 1
                                column = column_of(main[i], extra_at, per_cut, stream - 1, user, attempt)
                                cut = np.int64(cuts[i, column])
                                hi = ctx.offsets[user] + cut
                                lo, own = hi - min(cut, ctx.n_history), i - first
                                asked = Asked(
                                    user, cut, lo, hi, pool, settled[i, column], answers.values[own, column],
                                    answers.lengths[own, column], answers.rows[own, column], tallies,
                                )  # fmt: skip
                                state[0] = keyed(ctx.seed, stream, user, cut, attempt)
                                clear_record(waiting.records, row)
                                outcome = generate(ctx, asked, state, waiting.records, row)  # noqa: F821
                                outcomes[outcome] += 1
                                if outcome != ACCEPTED:
                                    waiting.after[row] = free
                                    free = row
                                    row = np.int64(-1)
                                    continue
                                waiting.records.status[row] = outcome
                                waiting.cut[row] = cut
                                waiting.single[row] = (
                                    singles >= 0 and waiting.records.lengths[row, waiting.records.answer[row]] == 1
                                )
                                waiting.after[row] = -1
                                previous = tail[i]
                                if previous >= 0:
                                    waiting.after[previous] = row
                                else:
                                    head[i] = row
                                tail[i] = row
                            fits = in_balance(ranks, waiting.records, row, slack)
                            fits = fits and not (waiting.single[row] and single >= singles)
                            fits = fits and not already_asked(
                                taken, taken_cut, earlier, last[i], waiting.records, row, waiting.cut[row]
                            )
                            if fits:
                                break
                            previous = row
                            row = waiting.after[row]
                        if fits:
                            copy_record(waiting.records, row, taken, found)
                            taken_cut[found], owner[found] = waiting.cut[row], i
                            earlier[found], last[i] = last[i], found
                            group = np.int64(taken.group[found]) + GROUPS // 2
                            ranks[group, 0, taken.ranks[found, 0]] += 1
                            ranks[group, 1, taken.ranks[found, 1]] += 1
                            single += waiting.single[row]
                            loose += slack > 1
                            found += 1
                            if previous >= 0:
                                waiting.after[previous] = waiting.after[row]
                            else:
                                head[i] = waiting.after[row]
                            if tail[i] == row:
                                tail[i] = previous
                            waiting.after[row] = free
                            free = row
                            if found == wanted:
                                return found, (i + 1) % n, loose, 0
                        elif used[i] < limit[i]:
                            used[i] = min(used[i] + BATCH, limit[i])
                            pending[still] = i
                            still += 1
                    m = still
            if found > before:
                continue
            if not opened and (limit < every).any():
                limit = every
                opened = True
            elif strict or slack > wanted:
                left = 0
                if strict:
                    skip = singles >= 0 and single >= singles
                    left = left_waiting(kept, head, taken, taken_cut, earlier, last, skip)
                return found, 0, loose, left
            else:
                slack *= 2

    return _compile(choose, generate=family.generate)


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
            codes = gather(ctx.codes[attribute], ctx.items[lo:hi])
            status, length = right_answer(ctx, codes, ctx.starts[lo:hi], out, tallies)  # noqa: F821
            if status == ACCEPTED:
                values[i] = out
                lengths[i] = length

    return _compile(right_answers, right_answer=family.right_answer)


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
