"""The user-disjoint split: made from raw ids and a seed of its own, untouched by the salt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from uqabench.errors import InputError

TRAIN, EVALUATION = 0, 1


def split_users(user_ids: Sequence[str], fraction: float, seed: int) -> np.ndarray:
    """int8 (U,): EVALUATION for `fraction` of the users, TRAIN for the rest.

    The ids are sorted, permuted by `seed`, and the first round(fraction * U) of them evaluate; each side keeps at
    least one user. The result follows the users, in whatever order they are given.
    """
    if len(user_ids) < 2:
        raise InputError(f"{len(user_ids)} user is left, and a split needs two: loosen min_user_length or add data.")
    order = np.array(sorted(range(len(user_ids)), key=lambda i: user_ids[i].encode()))
    chosen = np.random.Generator(np.random.Philox(seed)).permutation(len(order))
    size = min(max(round(fraction * len(order)), 1), len(order) - 1)
    split = np.full(len(order), TRAIN, np.int8)
    split[order[chosen[:size]]] = EVALUATION
    return split


def split_hash(user_ids: Sequence[str], split: np.ndarray) -> str:
    """Hex SHA-256 over the sorted (raw id, side) pairs; a one-way digest that names no user."""
    state = hashlib.sha256()
    for user, side in sorted(zip((user.encode() for user in user_ids), split.tolist(), strict=True)):
        state.update(len(user).to_bytes(8, "little") + user + bytes([side]))
    return state.hexdigest()
