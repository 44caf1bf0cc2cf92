"""The balance of right answers: within a group of questions all ranks are to be right equally often."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from uqabench.questions.core.answers import ATTRIBUTES
from uqabench.questions.core.compiled import inner
from uqabench.questions.core.options import SPREADS, spread_of
from uqabench.questions.core.pool import pooled_group
from uqabench.questions.declaration import OPTIONS

_GROUPS = 1 << 16
"""Groups of questions whose right answers are balanced apart: any int16."""


class Balance(NamedTuple):
    """What was taken so far, and what of that limits what is taken next."""

    ranks: np.ndarray  # int32 (groups, 2, 4): how often each rank of `Records.ranks` was right
    slack: np.ndarray  # int64 (1,): by less than that may a rank be ahead of the least frequent one
    singles: np.ndarray  # int64 (2,): questions whose answer is one value, and how many there may be; -1: any number
    rare: np.ndarray  # bool (4, groups of an attribute): see `rare_groups`
    closed: np.ndarray  # bool (4,): see `Asked`


@inner
def new_balance(singles, rare):
    """`Balance` of nothing; `singles`: how many questions may have an answer of one value."""
    return Balance(
        np.zeros((_GROUPS, 2, OPTIONS), np.int32), np.ones(1, np.int64), np.array([0, singles]), rare,
        np.zeros(ATTRIBUTES, np.bool_),
    )  # fmt: skip


@inner
def rare_groups(ctx, pool, tells_singles):
    """bool (4, 10): groups of each attribute in which a question can be whose right answer no history of the pool has,
    and whose wrong options come from the pool.

    Wrong options were the right ones of a history or more, so the right one is the rarest. tells_singles: whether
    options of one value are grouped apart.
    """
    out = np.zeros((ATTRIBUTES, 2 * SPREADS), np.bool_)
    counts = np.zeros(2, np.int64)
    for attribute in range(ATTRIBUTES):
        for row in range(ctx.pool_bounds[pool, attribute, 0], ctx.pool_bounds[pool, attribute, 1]):
            counts[1] = ctx.pool_counts[row, 0]
            spread = spread_of(counts)
            if not tells_singles or ctx.pool_lengths[row] > 1:
                out[attribute, pooled_group(0, spread, False)] = True
            if tells_singles:
                out[attribute, pooled_group(0, spread, True)] = True
    return out


@inner
def close(balance, attribute):
    """Find anew whether an attribute is closed."""
    closed = False
    for group in range(2 * SPREADS):
        if balance.rare[attribute, group]:
            closed = True
            at = pooled_group(attribute, 0, 0) + group + _GROUPS // 2
            if balance.ranks[at, 0, 0] - _least(balance.ranks, at, 0) < balance.slack[0]:
                closed = False
                break
    balance.closed[attribute] = closed


@inner
def loosen(balance):
    """Let ranks be ahead of the others twice as far."""
    balance.slack[0] *= 2
    for attribute in range(ATTRIBUTES):
        close(balance, attribute)


@inner
def open_all(balance):
    """Let nothing be closed from now on."""
    balance.rare[:] = False
    balance.closed[:] = False


@inner
def in_balance(balance, group, rank, popularity_rank, is_single):
    """Whether the ranks of a right answer are among the least frequent of its group so far."""
    if is_single and balance.singles[0] >= balance.singles[1]:
        return False
    at, slack = np.int64(group) + _GROUPS // 2, balance.slack[0]
    if balance.ranks[at, 0, rank] - _least(balance.ranks, at, 0) >= slack:
        return False
    return balance.ranks[at, 1, popularity_rank] - _least(balance.ranks, at, 1) <= slack


@inner
def enter(balance, records, row, is_single):
    """Count a question that was taken."""
    at = np.int64(records.group[row]) + _GROUPS // 2
    balance.ranks[at, 0, records.ranks[row, 0]] += 1
    balance.ranks[at, 1, records.ranks[row, 1]] += 1
    balance.singles[0] += is_single
    if records.attribute[row] >= 0:
        close(balance, records.attribute[row])


@inner
def _least(ranks, at, which):
    """How often the least frequent rank of a group was right so far."""
    out = ranks[at, which, 0]
    for rank in range(1, OPTIONS):
        out = min(out, ranks[at, which, rank])
    return out
