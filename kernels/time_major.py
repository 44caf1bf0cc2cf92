"""Packed tokens in the order in which a recurrence needs them: step 0 of every sequence, then step 1, and so on.

Sequences are ranked by length, longest first, so those still running at a step are the first rows of the state, and
a step works on a plain slice: no padding, no mask, and a sequence that has ended costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .checks import host_offsets, remember


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
    starts = np.asarray(host_offsets(offsets), dtype=np.int64)
    lengths = np.diff(starts)
    sequences = np.argsort(-lengths, kind="stable")
    ranks = np.argsort(sequences)
    steps = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    sizes = np.bincount(steps)
    first_positions = np.cumsum(sizes) - sizes
    positions = first_positions[steps] + np.repeat(ranks, lengths)
    return TimeMajor(
        sizes.tolist(),
        *(torch.from_numpy(a).to(offsets.device) for a in (np.argsort(positions), positions, sequences, ranks)),
    )
