"""The next-item loss of one process's share of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from uqabench.stages.distributed.catalogue import catalogue_cross_entropy, gathered_info_nce
from uqabench.stages.distributed.processes import processes

if TYPE_CHECKING:
    from uqabench.stages.distributed.several import SharedBatch
    from uqabench.stages.pretrain import PretrainLoss


class SharedPretrainLoss:
    """The next-item loss of this process's share of a step; the shares of all add up to the step's loss."""

    def __init__(self, loss: PretrainLoss) -> None:
        self.loss = loss

    def __call__(self, share: SharedBatch) -> tuple[Tensor, int]:
        queries, targets = self.loss.queries(share.batch)
        own = share.labels[processes().rank]
        queries, targets = queries[:own], targets[:own]
        table, config, dtype = self.loss.model.tower.item_table, self.loss.config, self.loss.dtype
        tokens = len(share.batch.items)
        if config.objective == "sl":
            return catalogue_cross_entropy(queries.to(dtype), table, targets, share.labels), tokens
        distinct, place = torch.unique(targets, return_inverse=True)
        positives = F.embedding(place, table(distinct))
        queries, positives = (F.normalize(x.float(), dim=-1).to(dtype) for x in (queries, positives))
        log_q = self.loss.log_q[targets]
        return gathered_info_nce(queries, positives, targets, log_q, config.temperature, share.labels), tokens
