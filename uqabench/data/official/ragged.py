"""Lists of ids laid end to end: where each begins and ends, and fingerprints by which equal ones are found."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from uqabench.data.jit import jit

BASE = np.uint64(0x9E3779B97F4A7C15)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """int64 (n + 1,): where each of n lists of these lengths begins, and the end of the last."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


class Lists(NamedTuple):
    """List i is ids[starts[i]:ends[i]]; all int64."""

    starts: np.ndarray
    ends: np.ndarray
    ids: np.ndarray

    def take(self, rows: np.ndarray) -> Lists:
        """The lists at these places, over the same ids."""
        return Lists(self.starts[rows], self.ends[rows], self.ids)

    @property
    def lengths(self) -> np.ndarray:
        return self.ends - self.starts

    def flat(self) -> tuple[np.ndarray, np.ndarray]:
        """(offsets int64 (n + 1,), the ids of all lists, end to end)."""
        offsets = offsets_of(self.lengths)
        places = np.arange(offsets[-1]) + np.repeat(self.starts - offsets[:-1], self.lengths)
        return offsets, self.ids[places]

    def only(self) -> np.ndarray:
        """The id of each list that has one; -1 for an empty list."""
        filled = self.lengths > 0
        values = np.full(len(self.starts), -1, np.int64)
        values[filled] = self.ids[self.starts[filled]]
        return values


@jit
def _mixed(value):
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@jit
def _fingerprints(starts, ends, ids, out):
    for row in range(len(starts)):
        state = _mixed(np.uint64(ends[row] - starts[row]) + np.uint64(1))
        for place in range(starts[row], ends[row]):
            state = _mixed(state ^ np.uint64(ids[place])) + np.uint64(0x9E3779B97F4A7C15)
        out[row] ^= _mixed(state)


def fingerprints(values: np.ndarray, lists: Lists) -> np.ndarray:
    """int64 (n,): 64 bits of each (value, list of ids); two of a million that differ agree with chance 3e-8."""
    out = values.astype(np.uint64) * BASE
    _fingerprints(lists.starts, lists.ends, lists.ids, out)
    return out.view(np.int64)


@jit
def rolling(items, offsets, out):
    """Polynomial hashes modulo 2^64 of every prefix: out[row] covers its sequence up to and with `row`."""
    for user in range(len(offsets) - 1):
        state = np.uint64(0)
        for row in range(offsets[user], offsets[user + 1]):
            state = state * np.uint64(0x9E3779B97F4A7C15) + _mixed(np.uint64(items[row]) + np.uint64(1))
            out[row] = state
