"""What Python calls of the compiled code. Machine code is kept on disk from one process to the next.

Numba notices a change in the file of a function that it finds on disk, but not in the files of the functions which that
one calls. Hence only these entries are kept, with all that they call compiled into them; and each closes over a digest
of all the sources, which makes it part of the key under which numba keeps them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from uqabench.data.jit import jit
from uqabench.questions import kinds
from uqabench.questions.core import histories
from uqabench.questions.core.context import ACCEPTED
from uqabench.questions.core.direct import direct_feature, match_feature
from uqabench.questions.core.following import next_feature
from uqabench.questions.core.histories import gather
from uqabench.questions.core.interest import interest, right_answer
from uqabench.questions.core.rng import keyed_state
from uqabench.questions.kinds import LONGEST_ANSWER

_choose_cuts, _count_next_items = histories.choose_cuts, histories.count_next_items


def _digest() -> int:
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(kinds.__file__)]
    return int.from_bytes(hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()[:7], "big") | 1


def _compile(sources: int) -> tuple:
    @jit
    def run_attempts(ctx, subtask, users, cuts, attempts, records):
        """Make candidate (users[i], cuts[i], attempts[i]) of `subtask` (its place in SUBTASKS) into row i of `records`.

        Each depends on (ctx.seed, sub-task, user, cut, attempt) alone. Histories are h = s[max(0, cut - N):cut].
        """
        assert sources
        for i in range(len(users)):
            hi = ctx.offsets[users[i]] + cuts[i]
            lo = hi - min(cuts[i], ctx.n_history)
            state = keyed_state(ctx.seed, subtask + 1, users[i], cuts[i], attempts[i])
            if subtask == 0:
                status = direct_feature(ctx, state, lo, hi, records, i)
            elif subtask == 1:
                status = match_feature(ctx, state, lo, hi, records, i)
            elif subtask <= 3:
                status = next_feature(ctx, state, lo, hi, subtask == 2, records, i)
            else:
                status = interest(ctx, state, lo, hi, subtask - 4, users[i], cuts[i], records, i)
            records.status[i] = status

    @jit
    def right_answers(ctx, which, attribute, users, cuts, values, lengths):
        """Answers of many histories into values int32 (n, 3) and lengths int8 (n,); 0 where there is none."""
        assert sources
        for i in range(len(users)):
            hi = ctx.offsets[users[i]] + cuts[i]
            lo = hi - min(cuts[i], ctx.n_history)
            out = np.full(LONGEST_ANSWER, -1, np.int32)
            status, length = right_answer(which, gather(ctx.codes[attribute], ctx.items[lo:hi]), ctx.window, out)
            if status == ACCEPTED:
                values[i] = out
                lengths[i] = length

    @jit
    def choose_cuts(starts, offsets, users, min_history, per_user, seed, salt):
        """Cuts int32 (len(users), per_user), ascending, -1 where a user has fewer places to cut.

        Places: min_history <= cut < length, where a basket begins. One is drawn from each of `per_user` equal parts of
        a user's places.
        """
        assert sources
        return _choose_cuts(starts, offsets, users, min_history, per_user, seed, salt)

    @jit
    def count_next_items(items, starts, offsets, users, min_history, n_items):
        """int64 (n_items,): how often an item stands at a place where a history of `users` may be cut."""
        assert sources
        return _count_next_items(items, starts, offsets, users, min_history, n_items)

    return run_attempts, right_answers, choose_cuts, count_next_items


run_attempts, right_answers, choose_cuts, count_next_items = _compile(_digest())
