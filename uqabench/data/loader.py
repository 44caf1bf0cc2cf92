"""Batches with the features of their items, packed ahead by a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from uqabench.data.jit import jit
from uqabench.data.packer import PackedBatch, batch_plan, pack
from uqabench.data.store import InteractionStore


@dataclass(frozen=True, eq=False)
class LoadedBatch:
    """A packed batch of T tokens and what the catalogue knows of its U different items, each once.

    unique int64 (U,): the items, in the order in which they first occur. inverse int64 (T,): unique[inverse] are the
    batch's items. codes: attribute -> int32 (U,), -1 where an item lacks it. tokens: attribute -> (offsets int64
    (U + 1,), ids int32): the words of its value.
    """

    packed: PackedBatch
    unique: np.ndarray
    inverse: np.ndarray
    codes: dict[str, np.ndarray]
    tokens: dict[str, tuple[np.ndarray, np.ndarray]]


class Loader:
    """The batches of one rank's share of an epoch, by step.

    users, starts, ends int (N,): the sequences, as `windows` gives them. ahead: batches that a thread packs while one
    is used. Batches are those of `batch_plan`: a function of (seed, epoch, rank, world) alone, whatever the step a run
    begins with. Raises InputError where `batch_plan` does, and for items past the catalogue.
    """

    def __init__(
        self,
        store: InteractionStore,
        users: np.ndarray,
        starts: np.ndarray,
        ends: np.ndarray,
        *,
        token_budget: int,
        seed: int,
        epoch: int = 0,
        rank: int = 0,
        world: int = 1,
        ahead: int = 2,
    ) -> None:
        store.check_items()
        self.store, self.ahead = store, ahead
        self.windows = users, starts, ends
        self.plan = batch_plan(ends - starts, token_budget, seed=seed, epoch=epoch, rank=rank, world=world)
        self._places = np.full(len(store.catalogue), -1, np.int32)

    def __len__(self) -> int:
        """The number of steps."""
        return len(self.plan)

    def batches(self, first: int = 0) -> Iterator[LoadedBatch]:
        """The batches from step `first` on."""
        with ThreadPoolExecutor(1) as thread:
            waiting: deque[Future[LoadedBatch]] = deque()
            for step in range(first, len(self)):
                waiting.append(thread.submit(self._load, step))
                if len(waiting) > self.ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _load(self, step: int) -> LoadedBatch:
        packed = pack(self.store, *self.windows, rows=self.plan[step])
        unique, inverse = _different(packed.items, self._places)
        catalogue = self.store.catalogue
        codes = {name: catalogue.codes[name][unique] for name in catalogue.attributes()}
        tokens = {name: _lists(*catalogue.tokens[name], own) for name, own in codes.items()}
        return LoadedBatch(packed, unique, inverse, codes, tokens)


@jit
def _different(items, places):
    """(different items in order of occurrence, place of each item's among them); places (V,) is -1, and left so."""
    unique = np.empty(len(items), np.int64)
    inverse = np.empty(len(items), np.int64)
    size = 0
    for i in range(len(items)):
        if places[items[i]] < 0:
            places[items[i]] = size
            unique[size] = items[i]
            size += 1
        inverse[i] = places[items[i]]
    for i in range(size):
        places[unique[i]] = -1
    return unique[:size], inverse


@jit
def _lists(offsets, ids, codes):
    """(offsets int64 (len(codes) + 1,), ids): the lists of the codes laid end to end, none for -1."""
    out = np.zeros(len(codes) + 1, np.int64)
    for i in range(len(codes)):
        out[i + 1] = out[i]
        if codes[i] >= 0:
            out[i + 1] += offsets[codes[i] + 1] - offsets[codes[i]]
    values = np.empty(out[-1], np.int32)
    for i in range(len(codes)):
        for j in range(out[i + 1] - out[i]):
            values[out[i] + j] = ids[offsets[codes[i]] + j]
    return out, values
