"""The user-disjoint split, made from raw ids and seeds of its own, and what is published of it: an order of the users
and digests that come from their sequences alone, so that none tells anything of an id or depends on the salt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from uqabench.errors import InputError

TRAIN, EVALUATION, VALIDATION = 0, 1, 2
SPLITS = ("train", "evaluation", "validation")
"""The sides by name, in the order of their codes."""
_VALIDATION_SALT = 1


def split_users(
    user_ids: Sequence[str], fraction: float, seed: int, validation_fraction: float = 0.0, validation_seed: int = 0
) -> np.ndarray:
    """int8 (U,): EVALUATION for `fraction` of the users, VALIDATION for `validation_fraction` of the others, TRAIN for
    the rest.

    The ids are sorted, permuted by `seed`, and the first round(fraction * U) of them evaluate, whatever the settings of
    the validation side. `validation_seed` permutes the others in the same way. Each side that is asked for keeps at
    least one user. The result follows the users, in whatever order they are given.
    """
    if len(user_ids) < 2:
        raise InputError(f"{len(user_ids)} user is left, and a split needs two: loosen min_user_length or add data.")
    order = np.array(sorted(range(len(user_ids)), key=lambda i: user_ids[i].encode()))
    chosen = np.random.Generator(np.random.Philox(seed)).permutation(len(order))
    size = min(max(round(fraction * len(order)), 1), len(order) - 1)
    split = np.full(len(order), TRAIN, np.int8)
    split[order[chosen[:size]]] = EVALUATION
    if validation_fraction > 0:
        others = order[np.sort(chosen[size:])]
        _draw_validation(split, others, validation_fraction, validation_seed)
    return split


def _draw_validation(split: np.ndarray, others: np.ndarray, fraction: float, seed: int) -> None:
    """Move `fraction` of the users `others`, in the order of their ids, to the validation side of `split`."""
    if len(others) < 2:
        raise InputError(
            "One user is left beside the evaluation users, and training and validation need two: set "
            "validation_fraction to 0 or add data."
        )
    drawn = np.random.Generator(np.random.Philox(key=[seed, _VALIDATION_SALT])).permutation(len(others))
    size = min(max(round(fraction * len(others)), 1), len(others) - 1)
    split[others[drawn[:size]]] = VALIDATION


def two_sided(split: np.ndarray) -> np.ndarray:
    """int8 (U,): the split as it is for whoever is concerned with evaluation users only: validation users count as
    training users."""
    return np.where(split == VALIDATION, TRAIN, split).astype(np.int8)


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
    later stage reads but their side; their salted ids decide, so that not even among them the raw ids' order shows.
    Evaluation users have the same places whoever of the others validates."""
    keys = list(zip(digests, two_sided(split).tolist(), split.tolist(), hashed_ids, strict=True))
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def split_hash(digests: Sequence[bytes], split: np.ndarray) -> str:
    """Hex SHA-256 over the sorted (digest of a sequence, side) pairs: which sequences train, which
    evaluate, and which validate. Without validation users it is that of the two other sides."""
    state = hashlib.sha256()
    for digest, side in sorted(zip(digests, split.tolist(), strict=True)):
        state.update(digest + bytes([side]))
    return state.hexdigest()
