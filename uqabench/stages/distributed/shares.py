"""Which part of a step's batch each process takes, and the next-item loss of such a part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from uqabench.data.packer import share_evenly
from uqabench.stages.distributed.catalogue import catalogue_cross_entropy, gathered_info_nce
from uqabench.stages.distributed.processes import processes

if TYPE_CHECKING:
    from uqabench.stages.pretrain import PretrainLoss, TorchBatch


@dataclass(frozen=True)
class Share:
    """This process's sequences of a step.

    sequences: users, starts and ends, as of a batch. labels: how many next items each process's sequences have. A
    process for which no sequence is left has the first one, whose labels do not count: it takes part in every
    operation all the same.
    """

    sequences: tuple[np.ndarray, ...]
    labels: list[int]


def share_sequences(batch: tuple[np.ndarray, ...]) -> Share:
    """This process's share of a step's (users, starts, ends), with about as many tokens as the others'."""
    group = processes()
    lengths = batch[2] - batch[1]
    parts = share_evenly(lengths, group.world)
    own = parts[group.rank] if len(parts[group.rank]) else np.array([0])
    labels = [int(np.maximum(lengths[part] - 1, 0).sum()) for part in parts]
    return Share(tuple(column[own] for column in batch), labels)


def whole_step(share: Share) -> list[tuple[Share, float]]:
    """A share as the one part of its step, weighted for the mean over processes."""
    return [(share, float(processes().world))]


class SharedPretrainLoss:
    """The next-item loss of this process's share of a step; the shares of all add up to the step's loss."""

    def __init__(self, loss: PretrainLoss, pack: Callable[[tuple[np.ndarray, ...]], TorchBatch]) -> None:
        self.loss, self.pack = loss, pack

    def __call__(self, share: Share) -> tuple[Tensor, int]:
        batch = self.pack(share.sequences)
        queries, targets = self.loss.queries(batch)
        own = share.labels[processes().rank]
        queries, targets = queries[:own], targets[:own]
        table, config = self.loss.model.tower.item_table, self.loss.config
        if config.objective == "sl":
            return catalogue_cross_entropy(queries, table, targets, share.labels), len(batch.items)
        distinct, place = torch.unique(targets, return_inverse=True)
        positives = F.normalize(F.embedding(place, table(distinct)), dim=-1)
        log_q = self.loss.log_q.to(targets.device)[targets]
        queries = F.normalize(queries, dim=-1)
        loss = gathered_info_nce(queries, positives, targets, log_q, config.temperature, share.labels)
        return loss, len(batch.items)


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
