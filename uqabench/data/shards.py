"""How a store's interactions lie in files: all in one, or in shards of whole users, of which a rank opens its own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from uqabench.errors import InputError

WHOLE = "interactions.arrow"
_SHARD = re.compile(r"interactions-\d{5}\.arrow")


def is_shard(name: str) -> bool:
    """Whether a file's name is that of one shard among several."""
    return _SHARD.fullmatch(name) is not None


def shard_names(shards: int) -> list[str]:
    """The files of so many shards, in the order of their users."""
    return [WHOLE] if shards == 1 else [f"interactions-{i:05d}.arrow" for i in range(shards)]


def shard_bounds(offsets: np.ndarray, rows: int) -> np.ndarray:
    """int64 (S + 1,): shard i holds users bounds[i]:bounds[i + 1], as many as fit into `rows` interactions, or one."""
    bounds = [0]
    while bounds[-1] < len(offsets) - 1:
        fits = int(np.searchsorted(offsets, offsets[bounds[-1]] + rows, side="right")) - 1
        bounds.append(min(max(fits, bounds[-1] + 1), len(offsets) - 1))
    return np.array(bounds if len(bounds) > 1 else [0, 0], np.int64)


def bounds_of(facts: dict[str, Any], users: int, files: Iterable[str], path: Any) -> np.ndarray:
    """The bounds that store.json records (one shard where it records none); InputError where they do not fit the
    users or the manifest's files."""
    bounds = facts.get("shards", [0, users])
    fit = isinstance(bounds, list) and len(bounds) > 1 and all(type(bound) is int for bound in bounds)
    if not fit or bounds[0] != 0 or bounds[-1] != users or (np.diff(bounds) < 0).any():
        raise InputError(f"{path}/store.json: 'shards' does not rise from 0 to the {users} users: prepare it again.")
    missing = sorted(set(shard_names(len(bounds) - 1)) - set(files))
    if missing:
        raise InputError(f"{path}/manifest.json lacks the file '{missing[0]}': run `uqabench prepare` again.")
    return np.array(bounds, np.int64)


def own_shards(shards: int, rank: int, world: int) -> range:
    """The consecutive shards of one rank; InputError for a rank outside 0..world-1, or more ranks than shards."""
    if not 0 <= rank < world:
        raise InputError(f"rank is {rank} and must lie in 0..{world - 1}.")
    if world > shards:
        raise InputError(
            f"The store has {shards} shard{'s' * (shards > 1)} for {world} ranks: prepare it with a smaller shard_rows."
        )
    return range(rank * shards // world, (rank + 1) * shards // world)
