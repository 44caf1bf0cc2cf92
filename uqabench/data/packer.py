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


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """The batches of one rank's share of an epoch: `plan[step]` is made when asked for, so that a run goes on from any
    step at once.

    order int64 (N,): all rows of the epoch, batch after batch. begins, ends int64 (steps,): where a step's batch lies.
    """

    order: np.ndarray
    begins: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        """The number of steps."""
        return len(self.begins)

    def __getitem__(self, step: int) -> np.ndarray:
        """Rows int64 of a step's batch."""
        return self.order[self.begins[step] : self.ends[step]]


def batch_plan(
    lengths: Sequence[int] | np.ndarray,
    token_budget: int,
    *,
    seed: int,
    epoch: int,
    rank: int = 0,
    world: int = 1,
    shuffle: bool = True,
) -> BatchPlan:
    """This rank's share of an epoch in batches; no batch exceeds `token_budget` tokens.

    With `shuffle`, rows are permuted, sorted by length within pools of some dozens of batches, filled greedily, and
    the steps permuted; without, rows are sorted by length (ties by row). Over all ranks each row occurs once. Several
    ranks have equally many batches, filled to as much less than the budget as that takes (unless there are fewer rows
    than ranks); in each step they get batches of like size, the largest for whoever has had the fewest tokens.
    Raises InputError for a sequence longer than the budget, negative lengths, or a rank outside 0..world-1.
    """
    lengths = np.asarray(lengths, np.int64)
    if not 0 <= rank < world:
        raise InputError(f"rank is {rank} and must lie in 0..{world - 1}.")
    if seed < 0 or epoch < 0:
        raise InputError(f"seed is {seed} and epoch is {epoch}: neither may be negative.")
    if len(lengths) == 0:
        return BatchPlan(*(np.empty(0, np.int64) for _ in range(3)))
    if lengths.min() < 0:
        raise InputError(f"lengths[{int(lengths.argmin())}] is {int(lengths.min())}: a length cannot be negative.")
    if lengths.max() > token_budget:
        raise InputError(
            f"Sequence {int(lengths.argmax())} has {int(lengths.max())} tokens, more than token_budget {token_budget}: "
            "raise the budget or shorten the windows."
        )
    if not shuffle:
        order = np.argsort(lengths, kind="stable")
        return _share(order, lengths, token_budget, rank, world, None)
    random = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], np.uint64)))
    order = random.permutation(len(lengths))
    pool = (np.cumsum(lengths[order]) - 1) // (token_budget * _POOL_BATCHES)
    order = order[np.lexsort((lengths[order], pool))]
    return _share(order, lengths, token_budget, rank, world, random)


def plan_batches(
    lengths: Sequence[int] | np.ndarray,
    token_budget: int,
    *,
    seed: int,
    epoch: int,
    shuffle: bool = True,
) -> list[np.ndarray]:
    """The rows (int64) of each batch of `batch_plan`, for one rank."""
    plan = batch_plan(lengths, token_budget, seed=seed, epoch=epoch, shuffle=shuffle)
    return [plan[step] for step in range(len(plan))]


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


def _share(
    order: np.ndarray,
    lengths: np.ndarray,
    token_budget: int,
    rank: int,
    world: int,
    random: np.random.Generator | None,
) -> BatchPlan:
    """A rank's batches, their steps permuted by `random`."""
    cuts = _even_cuts(lengths[order], token_budget, world)
    bounds = np.r_[0, cuts, len(order)].astype(np.int64)
    begins, ends = bounds[:-1], bounds[1:]
    if world > 1:
        begins, ends = _split(begins, ends, world)
        before = np.r_[0, np.cumsum(lengths[order])]
        chosen = _deal(before[ends] - before[begins], world)[rank]
        if random is not None:
            steps = random.permutation(-(-len(begins) // world))
            chosen = chosen[steps[steps < len(chosen)]]
    else:
        chosen = np.arange(len(begins)) if random is None else random.permutation(len(begins))
    return BatchPlan(order.astype(np.int64), begins[chosen], ends[chosen])


def _even_cuts(lengths: np.ndarray, token_budget: int, world: int) -> np.ndarray:
    """Where batches end: with several ranks, at the smallest budget for which each still has as many as it needs, so
    that no batch is much smaller than the others."""
    cuts = _cuts(lengths, token_budget)
    wanted = -(-(len(cuts) + 1) // world) * world
    low, high = int(lengths.max()), token_budget
    while world > 1 and low < high:
        middle = (low + high) // 2
        if len(_cuts(lengths, middle)) < wanted:
            high = middle
        else:
            low = middle + 1
    return cuts if world == 1 else _cuts(lengths, high)


def _split(begins: np.ndarray, ends: np.ndarray, world: int) -> tuple[np.ndarray, np.ndarray]:
    """Halve the batch of most rows until the ranks can have equally many."""
    begins, ends = begins.copy(), ends.copy()
    while len(begins) % world:
        largest = int(np.argmax(ends - begins))
        if ends[largest] - begins[largest] < 2:
            break
        middle = (begins[largest] + ends[largest] + 1) // 2
        begins, ends = np.insert(begins, largest + 1, middle), np.insert(ends, largest, middle)
    return begins, ends


def _deal(tokens: np.ndarray, world: int) -> list[np.ndarray]:
    """The batches of each rank, as many for all: always the next `world` by size, the largest to the rank that has had
    the fewest tokens."""
    by_size = np.argsort(-tokens, kind="stable")
    had = np.zeros(world, np.int64)
    dealt: list[list[int]] = [[] for _ in range(world)]
    for first in range(0, len(by_size), world):
        for batch, rank in zip(by_size[first : first + world], np.argsort(had, kind="stable"), strict=False):
            dealt[rank].append(batch)
            had[rank] += tokens[batch]
    return [np.array(batches, np.int64) for batches in dealt]


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
