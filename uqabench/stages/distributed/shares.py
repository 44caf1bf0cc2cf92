"""Which part of a step's batch each process takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from uqabench.data.packer import share_evenly
from uqabench.stages.distributed.processes import processes


@dataclass(frozen=True)
class Share:
    """This process's sequences of a step.

    rows: their places in the batch, ascending. labels: how many next items each process's sequences have. A process for
    which no sequence is left has the first one, whose labels do not count: it takes part in every operation all the
    same.
    """

    rows: np.ndarray
    labels: list[int]


def share_sequences(lengths: np.ndarray) -> Share:
    """This process's share of a step's sequences (B,), with about as many tokens as the others'."""
    group = processes()
    parts = share_evenly(lengths, group.world)
    own = parts[group.rank] if len(parts[group.rank]) else np.array([0])
    return Share(own, [int(np.maximum(lengths[part] - 1, 0).sum()) for part in parts])


def whole_step(batch: Any) -> list[tuple[Any, float]]:
    """What was loaded as the one part of its step, weighted for the mean over processes."""
    return [(batch, float(processes().world))]


def share_parts(
    step: list[Any],
    size: Callable[[Any], int],
    cut: Callable[[list[Any]], list[list[Any]]],
    weigh: Callable[[list[Any]], float],
) -> list[tuple[list[Any], float]]:
    """This process's share of a step's groups, `cut` into parts with their weights; all of it in one process.

    size: of a group; the processes' sums are about equal. weigh: the share of a part in the step's loss, which is
    multiplied by the number of processes. A process for which no group is left has the first one with weight 0.
    """
    group = processes()
    if not group.are_several:
        return [(part, weigh(part)) for part in cut(step)]
    own = share_evenly(np.array([size(member) for member in step]), group.world)[group.rank]
    if not len(own):
        return [(step[:1], 0.0)]
    return [(part, weigh(part) * group.world) for part in cut([step[i] for i in own])]
