"""The user-disjoint split, made from raw ids and a seed of its own, and what is published of it: an order of the users
and a digest that come from their sequences alone, so that neither tells anything of an id or depends on the salt."""

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


def sequence_digests(offsets: np.ndarray, columns: Sequence[np.ndarray]) -> list[bytes]:
    """16 bytes of BLAKE2b for each user over the user's rows of `columns`, arrays (R,) of one kind of fact each."""
    columns = [np.ascontiguousarray(column) for column in columns]
    spans = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    return [
        hashlib.blake2b(b"".join(column[start:stop].tobytes() for column in columns), digest_size=16).digest()
        for start, stop in spans
    ]


def name_digests(names: Sequence[str]) -> np.ndarray:
    """uint64 for each name, whatever its place among the others."""
    raw = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(raw, np.uint64)


def published_order(digests: Sequence[bytes], split: np.ndarray, hashed_ids: Sequence[str]) -> np.ndarray:
    """int64: the users by the digest of their sequence. Those with equal sequences are told apart by nothing that a
    later stage reads but their side; their salted ids decide, so that not even among them the raw ids' order shows."""
    keys = list(zip(digests, split.tolist(), hashed_ids, strict=True))
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def split_hash(digests: Sequence[bytes], split: np.ndarray) -> str:
    """Hex SHA-256 over the sorted (digest of a sequence, side) pairs: which sequences train and which evaluate."""
    state = hashlib.sha256()
    for digest, side in sorted(zip(digests, split.tolist(), strict=True)):
        state.update(digest + bytes([side]))
    return state.hexdigest()
