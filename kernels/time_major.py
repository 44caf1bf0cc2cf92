"""Packed tokens in the order in which a recurrence needs them: step 0 of every sequence, then step 1, and so on.

Sequences are ranked by length, longest first, so those still running at a step are the first rows of the state, and
a step works on a plain slice: no padding, no mask, and a sequence that has ended costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .checks import host_array
from .memory import know, remember


@dataclass(frozen=True)
class TimeMajor:
    """A permutation of the T tokens and of the B sequences."""

    sizes: list[int]  # number of sequences that have a step t; its sum is T
    tokens: Tensor  # (T,) int64: the packed token at each time-major position
    positions: Tensor  # (T,) int64: its inverse, the time-major position of each packed token
    sequences: Tensor  # (B,) int64: the sequence at each rank, empty ones last
    ranks: Tensor  # (B,) int64: its inverse


def time_major(offsets: Tensor) -> TimeMajor:
    """The time-major order of packed sequences. Kept on the offsets tensor: a model's layers share one a batch."""
    return remember(offsets, "time_major", lambda: _order(offsets))


def _order(offsets: Tensor) -> TimeMajor:
    sizes, arrays = order_arrays(host_array(offsets))
    return TimeMajor(sizes, *(torch.from_numpy(array).to(offsets.device) for array in arrays.values()))


def know_order(offsets: Tensor, sizes: list[int], arrays: dict[str, Tensor]) -> None:
    """Keeps the order of `order_arrays`, whose arrays lie on the device by now, as what `time_major(offsets)` is."""
    know(offsets, {"time_major": TimeMajor(sizes, **arrays)})


def order_arrays(starts: np.ndarray) -> tuple[list[int], dict[str, np.ndarray]]:
    """The sizes, and by name the arrays int64, of the time-major order of offsets that the host has, int64 (B+1,)."""
    lengths = np.diff(starts)
    sequences = np.argsort(-lengths, kind="stable")
    ranks = np.argsort(sequences)
    steps = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    sizes = np.bincount(steps)
    first_positions = np.cumsum(sizes) - sizes
    positions = first_positions[steps] + np.repeat(ranks, lengths)
    arrays = {"tokens": np.argsort(positions), "positions": positions, "sequences": sequences, "ranks": ranks}
    return sizes.tolist(), arrays
