"""Interactions as the rules of preprocessing see them, and those that lie in memory."""

from __future__ import annotations

from typing import Protocol

import numpy as np

Size = tuple[int, int, int]
"""(distinct users, distinct items, interactions)."""


class Rows(Protocol):
    """What the rules do to interactions, wherever these lie. Each rule says whether it removed any."""

    def counts(self) -> Size:
        """What is left."""

    def drop_rare_items(self, least: int, last: int) -> bool:
        """Items with fewer than `least` rows among the last `last` of each user go."""

    def drop_users(self, least: int, most: int) -> bool:
        """Users with fewer than `least` rows or more than `most` go."""

    def cut(self, last: int) -> bool:
        """Each user's rows go but for the last `last`."""


class CodedRows:
    """Rows in memory. users, items: int (R,) codes, sorted by user and time. keep: int64, the rows that are left."""

    def __init__(self, users: np.ndarray, items: np.ndarray) -> None:
        self._users, self._items = users, items
        self.keep = np.arange(len(users), dtype=np.int64)

    def counts(self) -> Size:
        return counts(self._users[self.keep], self._items[self.keep])

    def drop_rare_items(self, least: int, last: int) -> bool:
        items = self._items[self.keep]
        recent = items[from_end(self._users[self.keep]) < last]
        rare = np.bincount(recent, minlength=int(items.max(initial=0)) + 1) < least
        return self._drop(rare[items])

    def drop_users(self, least: int, most: int) -> bool:
        users = self._users[self.keep]
        lengths = np.bincount(users)
        return self._drop(((lengths < least) | (lengths > most))[users])

    def cut(self, last: int) -> bool:
        return self._drop(from_end(self._users[self.keep]) >= last)

    def _drop(self, gone: np.ndarray) -> bool:
        if not gone.any():
            return False
        self.keep = self.keep[~gone]
        return True


def counts(users: np.ndarray, items: np.ndarray) -> Size:
    """(distinct users, distinct items, interactions) of codes by row."""
    seen = (int(np.count_nonzero(np.bincount(codes))) if len(codes) else 0 for codes in (users, items))
    return (*seen, len(users))


def from_end(users: np.ndarray) -> np.ndarray:
    """int64 (R,): how many rows of the same user follow each row, for users in sorted order."""
    ends = np.flatnonzero(np.r_[users[1:] != users[:-1], True]) if len(users) else np.zeros(0, np.int64)
    lengths = np.diff(np.r_[-1, ends])
    return np.repeat(ends, lengths) - np.arange(len(users))
