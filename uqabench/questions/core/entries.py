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
from uqabench.questions.core.context import ACCEPTED, Asked
from uqabench.questions.core.histories import gather
from uqabench.questions.core.rng import keyed_state
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
def attempts_of(family: Family) -> Callable[..., None]:
    """run_attempts(ctx, stream, pool, users, cuts, attempts, records) with the family's generator.

    It makes candidate (users[i], cuts[i], attempts[i]) into row i of `records`. Each depends on (ctx.seed, stream,
    user, cut, attempt) alone. Histories are h = s[max(0, cut - N):cut].
    """
    sources = _digest(family)

    def run_attempts(ctx, stream, pool, users, cuts, attempts, records):
        assert sources
        for i in range(len(users)):
            hi = ctx.offsets[users[i]] + cuts[i]
            asked = Asked(users[i], cuts[i], hi - min(cuts[i], ctx.n_history), hi, pool)
            state = keyed_state(ctx.seed, stream, users[i], cuts[i], attempts[i])
            records.status[i] = generate(ctx, asked, state, records, i)  # noqa: F821

    return _compile(run_attempts, generate=family.generate)


@cache
def answers_of(family: Family) -> Callable[..., None]:
    """right_answers(ctx, attribute, users, cuts, values, lengths) with the family's rule.

    It writes the answers of many histories into values int32 (n, 3) and lengths int8 (n,), which stays 0 where there is
    none.
    """
    sources = _digest(family)

    def right_answers(ctx, attribute, users, cuts, values, lengths):
        assert sources
        for i in range(len(users)):
            hi = ctx.offsets[users[i]] + cuts[i]
            lo = hi - min(cuts[i], ctx.n_history)
            out = np.full(LONGEST_ANSWER, -1, np.int32)
            codes = gather(ctx.codes[attribute], ctx.items[lo:hi])
            status, length = right_answer(ctx, codes, ctx.starts[lo:hi], out)  # noqa: F821
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
