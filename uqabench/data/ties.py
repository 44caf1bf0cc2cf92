"""Items with one timestamp have no order: each order of them is as true as the one that a log happens to store."""

from __future__ import annotations

import numpy as np


def shuffled_ties(
    items: np.ndarray, offsets: np.ndarray, timestamps: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Packed items (T,) with those of one sequence and one timestamp in random order.

    items (T,); offsets int64 (B+1,), where sequences begin and end; timestamps (T,), ascending in each sequence.
    """
    sequence = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return items[np.lexsort((rng.random(len(items)), timestamps, sequence))]
