"""The keys and values of histories that new tokens attend to, and the new tokens' attention in padded groups.

A cache is packed like everything else, and is a value: appending makes another one. That copies what attention is going
to read anyway, and the same state may be continued in two ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .checks import check_like, check_offsets, check_same, check_tensor, host_array
from .memory import know_offsets
from .ragged import is_similar


class KeyValues(NamedTuple):
    """Keys (T, H, D) and values (T, H, Dv) of B histories, packed by offsets int64 (B+1,); timestamps int64 (T,)."""

    k: Tensor
    v: Tensor
    offsets: Tensor
    timestamps: Tensor | None = None


def check_cache(cache: Any, k: Tensor, v: Tensor, offsets: Tensor, timestamps: Tensor | None) -> None:
    """`cache` is a KeyValues whose tensors fit the new k, v, offsets and timestamps."""
    if not isinstance(cache, KeyValues):
        raise TypeError(f"cache must be a KeyValues or None, not {type(cache).__name__}.")
    check_tensor(cache.k, "cache.k", (None, *k.shape[1:]))
    old = cache.k.shape[0]
    check_like(k, "k", **{"cache.k": (cache.k, (old, *k.shape[1:])), "cache.v": (cache.v, (old, *v.shape[1:]))})
    check_offsets(cache.offsets, cache.k, "cache.offsets")
    if len(cache.offsets) != len(offsets):
        have, want = len(cache.offsets) - 1, len(offsets) - 1
        raise ValueError(f"cache holds {have} histories, but offsets says that there are {want}.")
    if (cache.timestamps is None) != (timestamps is None):
        raise ValueError("timestamps must be given for all appended tokens or for none: cache says otherwise.")
    if timestamps is not None:
        check_tensor(cache.timestamps, "cache.timestamps", (old,), (torch.int64,))
        check_same(k, "k", dtype=False, **{"cache.timestamps": cache.timestamps})


@dataclass(frozen=True)
class Joined:
    """`keys`: the histories with the new tokens after each. Host arrays int64 (B,): tokens before, and new ones."""

    keys: KeyValues
    before: np.ndarray
    new: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return self.before + self.new

    def without_last(self, dropped: np.ndarray) -> KeyValues:
        """The keys without the last `dropped` int64 (B,) tokens of each history."""
        if not dropped.any():
            return self.keys
        starts = host_array(self.keys.offsets)[:-1]
        kept = self.lengths - dropped
        rows = np.repeat(starts - _offsets(kept)[:-1], kept) + np.arange(kept.sum())
        return _select(self.keys, torch.from_numpy(rows).to(self.keys.k.device), kept)


def join(cache: KeyValues | None, k: Tensor, v: Tensor, offsets: Tensor, timestamps: Tensor | None) -> Joined:
    """The cached histories, each followed by its new tokens."""
    new = np.diff(host_array(offsets))
    before = np.zeros_like(new) if cache is None else np.diff(host_array(cache.offsets))
    if cache is None or not before.any():
        return Joined(KeyValues(k, v, offsets, timestamps), before, new)
    sequences = np.arange(len(new))
    order = np.argsort(np.concatenate([np.repeat(sequences, before), np.repeat(sequences, new)]), kind="stable")
    times = None if timestamps is None else torch.cat([cache.timestamps, timestamps])
    both = KeyValues(torch.cat([cache.k, k]), torch.cat([cache.v, v]), offsets, times)
    return Joined(_select(both, torch.from_numpy(order).to(k.device), before + new), before, new)


def _select(keys: KeyValues, rows: Tensor, lengths: np.ndarray) -> KeyValues:
    values = _offsets(lengths)
    offsets = know_offsets(torch.from_numpy(values).to(rows.device), values)
    times = None if keys.timestamps is None else keys.timestamps[rows]
    return KeyValues(keys.k[rows], keys.v[rows], offsets, times)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)])


@dataclass(frozen=True)
class StepGroup:
    """G sequences with n new tokens each and up to L tokens in all.

    A padded key repeats its sequence's last; its position is past every query's.
    """

    members: np.ndarray  # (G,), the host's
    queries: Tensor  # (G, n) int64: rows of the new tokens
    positions: Tensor  # (G, n) int64: their places in their sequences
    rows: Tensor  # (G, L) int64: rows of the joined keys
    places: Tensor  # (L,) int64: 0, 1, ...


def step_groups(joined: Joined, max_cells: int) -> Iterator[StepGroup]:
    """Groups that hold every new token once; G * n * L <= `max_cells` where G > 1."""
    new, lengths, device = joined.new, joined.lengths, joined.keys.k.device
    starts, first_new = host_array(joined.keys.offsets)[:-1], _offsets(new)[:-1]
    order = np.lexsort((-lengths, -new))
    order = order[new[order] > 0]
    first = 0
    while first < len(order):
        n, longest = int(new[order[first]]), int(lengths[order[first]])
        last = first + 1
        most = first + max(1, max_cells // (n * longest))
        while last < min(most, len(order)) and new[order[last]] == n and is_similar(lengths[order[last]], longest):
            last += 1
        members = order[first:last]
        first = last
        count, places = np.arange(n), np.arange(longest)
        queries = first_new[members, None] + count
        positions = joined.before[members, None] + count
        rows = starts[members, None] + np.minimum(places, lengths[members, None] - 1)
        yield StepGroup(members, *(torch.from_numpy(x).to(device) for x in (queries, positions, rows, places)))
