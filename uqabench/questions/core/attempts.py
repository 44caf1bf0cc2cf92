"""Many candidates of one sub-task."""

from __future__ import annotations

from uqabench.questions.core.compiled import inner
from uqabench.questions.core.direct import direct_feature, match_feature
from uqabench.questions.core.following import next_feature
from uqabench.questions.core.interest import interest
from uqabench.questions.core.rng import keyed_state


@inner
def run_attempts(ctx, subtask, users, cuts, attempts, records):
    """See `entries.run_attempts`."""
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
