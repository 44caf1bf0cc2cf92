"""Packed batches: sequences laid end to end, filled to a token budget, with no padding.

Every choice is a function of (seed, epoch), so an epoch is the same on any machine and with any number of threads,
and the processes of a run share out each batch without talking to each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uqabench.data.jit import jit
from uqabench.data.store import InteractionStore
from uqabench.errors import InputError

# Sequences are sorted by length within pools of this many batches: long enough that batches hold like lengths,
# short enough that which sequences meet changes from epoch to epoch.
_POOL_BATCHES = 32


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """B sequences with T tokens in all.

    items int64 (T,), timestamps int64 (T,) Unix seconds or None, offsets int64 (B + 1,), rows int64 (B,): the place
    of each sequence in the lists that were packed.
    """

    items: np.ndarray
    timestamps: np.ndarray | None
    offsets: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        """The number of sequences."""
        return len(self.rows)

    def take(self, sequences: np.ndarray) -> PackedBatch:
        """Of the sequences those at these places int64 (n,), in their order."""
        lengths = np.diff(self.offsets)[sequences]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        at = np.arange(offsets[-1]) + np.repeat(self.offsets[sequences] - offsets[:-1], lengths)
        timestamps = None if self.timestamps is None else self.timestamps[at]
        return PackedBatch(self.items[at], timestamps, offsets, self.rows[sequences])


def plan_batches(
    lengths: Sequence[int] | np.ndarray,
    token_budget: int,
    *,
    seed: int,
    epoch: int,
    shuffle: bool = True,
) -> list[np.ndarray]:
    """The rows (int64) of each batch of an epoch; no batch exceeds `token_budget` tokens, and each row occurs once.

    With `shuffle`, rows are permuted, sorted by length within pools of some dozens of batches, filled greedily, and
    the batches permuted; without, rows are sorted by length (ties by row).
    Raises InputError for a sequence longer than the budget, or negative lengths.
    """
    lengths = np.asarray(lengths, np.int64)
    if seed < 0 or epoch < 0:
        raise InputError(f"seed is {seed} and epoch is {epoch}: neither may be negative.")
    if len(lengths) == 0:
        return []
    if lengths.min() < 0:
        raise InputError(f"lengths[{int(lengths.argmin())}] is {int(lengths.min())}: a length cannot be negative.")
    if lengths.max() > token_budget:
        raise InputError(
            f"Sequence {int(lengths.argmax())} has {int(lengths.max())} tokens, more than token_budget {token_budget}: "
            "raise the budget or shorten the windows."
        )
    if not shuffle:
        return _batches(np.argsort(lengths, kind="stable"), lengths, token_budget)
    random = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], np.uint64)))
    order = random.permutation(len(lengths))
    pool = (np.cumsum(lengths[order]) - 1) // (token_budget * _POOL_BATCHES)
    order = order[np.lexsort((lengths[order], pool))]
    batches = _batches(order, lengths, token_budget)
    return [batches[i] for i in random.permutation(len(batches))]


def _batches(order: np.ndarray, lengths: np.ndarray, token_budget: int) -> list[np.ndarray]:
    return np.split(order.astype(np.int64), _cuts(lengths[order], token_budget))


@jit
def _cuts(lengths, token_budget):
    """Where the next sequence would no longer fit."""
    cuts = np.empty(len(lengths), np.int64)
    found = 0
    filled = 0
    for i in range(len(lengths)):
        if filled + lengths[i] > token_budget:
            cuts[found] = i
            found += 1
            filled = 0
        filled += lengths[i]
    return cuts[:found]


def share_evenly(sizes: np.ndarray, shares: int) -> list[np.ndarray]:
    """Places (int64, ascending) of a batch's members, of these sizes (n,), shared out: the largest first, each to the
    share that has least so far. With fewer members than shares some are empty."""
    filled = np.zeros(shares, np.int64)
    owner = np.empty(len(sizes), np.int64)
    for member in np.argsort(-np.asarray(sizes), kind="stable"):
        owner[member] = filled.argmin()
        filled[owner[member]] += sizes[member]
    return [np.flatnonzero(owner == share) for share in range(shares)]


def windows(
    store: InteractionStore, users: np.ndarray, length: int, *, mode: str = "last", seed: int = 0, epoch: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows of at most `length` interactions as (users, starts, ends), int64, positions within each sequence.

    "last": the last `length` of each user. "chunks": consecutive chunks that cover each sequence exactly once; where
    a sequence is longer than `length`, the first chunk ends at a position drawn from (seed, epoch, user), so that an
    epoch's cuts fall elsewhere than the last one's.
    """
    if length < 1:
        raise InputError(f"length is {length} and must be at least 1.")
    users = np.asarray(users, np.int64)
    if len(users) and not 0 <= int(users.min()) <= int(users.max()) < len(store):
        raise InputError(f"users hold indices past the store's {len(store)} users.")
    sizes = store.offsets[users + 1] - store.offsets[users]
    if mode == "last":
        return users, np.maximum(0, sizes - length), sizes.astype(np.int64)
    if mode != "chunks":
        raise InputError(f"There is no window mode '{mode}': choose last or chunks.")
    first = np.where(sizes > length, 1 + (_mix(seed, epoch, users) % np.uint64(length)).astype(np.int64), sizes)
    chunks = (sizes > 0) + -(-(sizes - first) // length)
    place = np.arange(int(chunks.sum())) - np.repeat(np.cumsum(chunks) - chunks, chunks)
    ends = np.minimum(np.repeat(first, chunks) + place * length, np.repeat(sizes, chunks))
    starts = np.where(place == 0, 0, np.repeat(first, chunks) + (place - 1) * length)
    return np.repeat(users, chunks), starts, ends


def _mix(seed: int, epoch: int, users: np.ndarray) -> np.ndarray:
    """uint64 hash of (seed, epoch, user): the finaliser of SplitMix64 (https://prng.di.unimi.it/splitmix64.c)."""
    state = users.astype(np.uint64)
    for word in (seed, epoch, 0):
        state = (state ^ np.uint64(word)) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


def pack(
    store: InteractionStore,
    users: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    rows: np.ndarray | None = None,
) -> PackedBatch:
    """Lay sequences start:end of each user end to end.

    users, starts, ends: int (N,), one entry a sequence, positions within the user's sequence. `rows` chooses which
    of them and in what order (a batch of `plan_batches`); all without it. Raises InputError naming the first row
    that leaves its user's sequence.
    """
    rows = np.arange(len(users), dtype=np.int64) if rows is None else np.asarray(rows, np.int64)
    users, starts, ends = (np.asarray(column)[rows].astype(np.int64) for column in (users, starts, ends))
    known = (users >= 0) & (users < len(store))
    here = np.where(known, users, 0)
    sizes = store.offsets[here + 1] - store.offsets[here]
    wrong = np.flatnonzero(~known | (starts < 0) | (starts > ends) | (ends > sizes))
    if len(wrong):
        i = wrong[0]
        raise InputError(
            f"Row {rows[i]} asks for {starts[i]}:{ends[i]} of user {users[i]}, which the store does not have."
        )
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(ends - starts, out=offsets[1:])
    first = store.offsets[users] + starts
    items = _gather(store.items, first, offsets)
    timestamps = None if store.timestamps is None else _gather(store.timestamps, first, offsets)
    return PackedBatch(items, timestamps, offsets, rows)


@jit
def _gather(values, first, offsets):
    """Copy len(first) runs, run b starting at first[b], to offsets[b]."""
    out = np.empty(offsets[-1], np.int64)
    for b in range(len(first)):
        shift = first[b] - offsets[b]
        for i in range(offsets[b], offsets[b + 1]):
            out[i] = values[i + shift]
    return out
