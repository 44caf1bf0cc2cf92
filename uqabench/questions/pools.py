"""Pools of right answers of training users: what the wrong options of some families (li, si, it) are drawn from."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np

from uqabench.questions.core.context import Context, no_tallies
from uqabench.questions.core.entries import answers_of, choose_cuts
from uqabench.questions.core.pool import CLASSIFICATIONS
from uqabench.questions.declaration import ASKED, LONGEST_ANSWER
from uqabench.questions.kinds import pooled
from uqabench.questions.tables import Values

HISTORIES = 20_000
CUTS_PER_USER = 32
LARGE_CLASS = 8
"""A class of answers (say, those with the same first value) is kept apart if it has this many different ones."""

_CUT_SALT, _USER_SALT, _THIN_SALT = 101, 102, 103


class Pools(NamedTuple):
    """The pool fields of `Context`."""

    pool_values: np.ndarray
    pool_lengths: np.ndarray
    pool_counts: np.ndarray
    pool_bounds: np.ndarray
    class_index: np.ndarray
    class_keys: np.ndarray
    class_bounds: np.ndarray
    single_keep: np.ndarray


def empty_pools(families: int) -> Pools:
    """No answers at all, of that many families."""
    return Pools(
        np.empty((0, LONGEST_ANSWER), np.int32),
        np.empty(0, np.int8),
        np.empty((0, 2), np.int64),
        np.zeros((families, len(ASKED), 2), np.int64),
        np.empty(0, np.int64),
        np.empty(0, np.int32),
        np.zeros((families, len(ASKED), CLASSIFICATIONS, 3), np.int64),
        np.ones((families, len(ASKED)), np.float64),
    )


def build_pools(
    context: Context, train_users: np.ndarray, version: str, cuts_per_user: int, executor: Executor
) -> Pools:
    """Ask what a version's pooled families ask about HISTORIES histories of training users, cut as those of questions
    are.

    Of the context it needs no facts of values and no pools; `with_popularity` enters what those are needed for. The
    executor works on several families and attributes at a time.
    """
    seed = int(context.seed)
    rng = np.random.Generator(np.random.Philox(key=[seed, _USER_SALT]))
    users = np.sort(rng.permutation(train_users)[:HISTORIES])
    per_user = max(cuts_per_user, min(CUTS_PER_USER, -(-HISTORIES // max(1, len(users)))))
    cuts = choose_cuts(context.starts, context.offsets, users, context.min_history, per_user, context.seed, _CUT_SALT)
    owners = np.repeat(users, per_user)[cuts.ravel() >= 0]
    cuts = cuts.ravel()[cuts.ravel() >= 0].astype(np.int64)
    families = pooled(version)
    pools = empty_pools(len(families))
    parts, index, keys = [], [], []
    rows = members = 0

    def answers(task: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        values = np.full((len(owners), LONGEST_ANSWER), -1, np.int32)
        lengths = np.zeros(len(owners), np.int8)
        tallies = no_tallies(int(context.codes[:, task[1]].max(initial=-1)) + 1)
        answers_of(families[task[0]])(context, task[1], owners, cuts, tallies, values, lengths)
        return values, lengths

    tasks = [(pool, attribute) for pool in range(len(families)) for attribute in context.side]
    found = dict(zip(tasks, executor.map(answers, tasks), strict=True))
    for pool, family in enumerate(families):
        for attribute in context.side:
            values, lengths = found[pool, attribute]
            if family.single_pool_share is not None:
                pools.single_keep[pool, attribute] = _thin(lengths, family.single_pool_share, seed, int(attribute))
            values, lengths = values[lengths > 0], lengths[lengths > 0]
            order = np.lexsort(values.T[::-1])
            values, lengths = values[order], lengths[order]
            parts.append((values, lengths))
            pools.pool_bounds[pool, attribute] = rows, rows + len(values)
            for classification in range(CLASSIFICATIONS):
                own_index, own_keys, small = _classes(values, lengths, classification)
                bounds = members, members + small, members + len(own_index)
                pools.class_bounds[pool, attribute, classification] = bounds
                index.append(own_index + rows)
                keys.append(own_keys)
                members += len(own_index)
            rows += len(values)
    if not parts:
        return pools
    return pools._replace(
        pool_values=np.concatenate([values for values, _ in parts]),
        pool_lengths=np.concatenate([lengths for _, lengths in parts]),
        pool_counts=np.concatenate([_histories(values) for values, _ in parts]),
        class_index=np.concatenate(index).astype(np.int64),
        class_keys=np.concatenate(keys).astype(np.int32),
    )


def with_popularity(pools: Pools, values: Values) -> Pools:
    """The same with the popularity of each answer's values."""
    for pool, attribute in np.ndindex(pools.pool_bounds.shape[:2]):
        rows = slice(*pools.pool_bounds[pool, attribute])
        own = pools.pool_values[rows]
        found = values.popularity[np.where(own >= 0, values.base[attribute] + own, 0)]
        pools.pool_counts[rows, 1] = np.where(own >= 0, found, 0).sum(axis=1)
    return pools


def _histories(values: np.ndarray) -> np.ndarray:
    """int64 (n, 2): how many of the sorted answers are equal to each, and 0."""
    different = np.flatnonzero(np.r_[True, (values[1:] != values[:-1]).any(axis=1), True][: len(values) + 1])
    counts = np.diff(different) if len(values) else np.zeros(0, np.int64)
    return np.stack([np.repeat(counts, counts), np.zeros(len(values), np.int64)], axis=1)


def _thin(lengths: np.ndarray, share: float, seed: int, attribute: int) -> float:
    """Drop answers of one value (length := 0) until they are `share` of all; returns the fraction of them kept."""
    single = np.flatnonzero(lengths == 1)
    others = int((lengths > 1).sum())
    keep = min(1.0, share / (1 - share) * others / max(1, len(single)))
    rng = np.random.Generator(np.random.Philox(key=[seed, _THIN_SALT + attribute]))
    lengths[single[rng.random(len(single)) >= keep]] = 0
    return keep


def _classes(values: np.ndarray, lengths: np.ndarray, classification: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(rows, their keys, how many belong to small classes); rows of small classes first, then by key.

    classification 0: one class; 1 and 2: by the first and second value; 3: by the last.
    """
    rows = np.arange(len(values))
    if classification == 0:
        return rows, np.zeros(len(rows), np.int32), 0
    last = classification == CLASSIFICATIONS - 1
    keys = values[rows, lengths - 1] if last else values[:, classification - 1]
    first_of_equals = np.ones(len(rows), bool)  # rows are sorted: equal answers are neighbours
    first_of_equals[1:] = (values[1:] != values[:-1]).any(axis=1)
    names, inverse = np.unique(keys, return_inverse=True)
    different = np.bincount(inverse, weights=first_of_equals, minlength=len(names))
    large = (different >= LARGE_CLASS)[inverse] if len(names) else np.zeros(0, bool)
    order = np.lexsort((rows, keys, large))
    return rows[order], keys[order], int((~large).sum())
