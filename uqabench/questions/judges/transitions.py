"""What training users take next after what: counts of values in one basket and in the one after it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from uqabench.data.store import InteractionStore

MOST_PAIRS = 50_000_000
"""Pairs of values in neighbouring baskets that are counted at most; of a larger log the first users are taken."""


class Transitions(NamedTuple):
    """Of one attribute with n values, over training users; a basket's values count once.

    indptr, indices, counts: row b of the sparse (n, n) matrix says in how many baskets after one with value b each
    value is. sources int64 (n,): baskets with a value that have a next one. targets int64 (n,): baskets after another
    one, by value. pairs: how many such pairs of baskets there are. counted bool (U,): users who are part of it.
    basket_bounds, basket_values: the distinct values of all users' baskets; user_baskets int64 (U + 1,): where each
    user's begin.
    """

    indptr: np.ndarray
    indices: np.ndarray
    counts: np.ndarray
    sources: np.ndarray
    targets: np.ndarray
    pairs: int
    counted: np.ndarray
    basket_bounds: np.ndarray
    basket_values: np.ndarray
    user_baskets: np.ndarray


def count_transitions(store: InteractionStore, codes: np.ndarray, starts: np.ndarray) -> Transitions:
    """Count them for the codes int32 (V,) of one attribute; `starts` bool (R,): where a basket begins."""
    n = max(1, int(codes.max(initial=0)) + 1)
    basket = np.cumsum(starts) - 1
    baskets = int(basket[-1]) + 1 if len(basket) else 0
    of_rows = codes[store.items]
    known = of_rows >= 0
    distinct = np.unique(basket[known] * n + of_rows[known])
    bounds = np.searchsorted(distinct, np.arange(baskets + 1) * n)
    values = (distinct % n).astype(np.int32)
    first = np.append(basket, baskets)[store.offsets].astype(np.int64)
    counted = np.zeros(len(store), bool)
    counted[store.users("train")] = True
    owner = np.repeat(np.arange(len(store)), np.diff(first))
    followed = np.zeros(baskets, bool)
    followed[:-1] = (owner[1:] == owner[:-1]) & counted[owner[1:]]
    sizes = np.diff(bounds)
    work = np.zeros(baskets, np.int64)
    work[:-1] = sizes[:-1] * sizes[1:]
    spent = np.cumsum(np.where(followed, work, 0))
    if len(spent) and spent[-1] > MOST_PAIRS:
        counted &= np.append(spent, spent[-1])[np.maximum(first[1:] - 1, 0)] <= MOST_PAIRS
        followed[:-1] &= counted[owner[1:]]
    rows = np.flatnonzero(followed)
    incidence = csr_matrix((np.ones(len(values), np.int32), values, bounds), shape=(baskets, n))
    before, after = incidence[rows], incidence[rows + 1]
    product = (before.T.tocsr() @ after).tocsr()
    product.sort_indices()
    return Transitions(
        product.indptr.astype(np.int64),
        product.indices.astype(np.int32),
        product.data.astype(np.int64),
        np.asarray(before.sum(axis=0), np.int64).ravel(),
        np.asarray(after.sum(axis=0), np.int64).ravel(),
        len(rows),
        counted,
        bounds.astype(np.int64),
        values,
        first,
    )
