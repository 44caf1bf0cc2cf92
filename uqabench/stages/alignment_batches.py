"""The questions of an alignment step on their way to the device, packed and copied while the step before runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from uqabench.kernels.memory import know_offsets
from uqabench.llm.batches import (
    GroupBatch,
    PromptGroup,
    answer_loss,
    batch_hidden,
    collate,
    number_keys,
    plan_group_batches,
)
from uqabench.llm.language_model import LanguageModel
from uqabench.settings.stages import AlignConfig
from uqabench.stages.copies import Arrival, copied_together
from uqabench.stages.distributed.shares import share_parts

if TYPE_CHECKING:
    from uqabench.stages.align import SoftPrompts


@dataclass(frozen=True)
class AlignmentPart:
    """What one forward pass takes: rows of questions, and what the adapter reads of their histories (`SoftPrompts`)."""

    batch: GroupBatch
    histories: tuple[Tensor, ...] | None
    arrival: Arrival | None = None


class AlignmentBatches:
    """Packs the groups of a step, or of a step's share in this process, and computes their loss.

    A step's parts have `config.token_budget` padded tokens at most. On a GPU they are copied on a stream of their own.
    """

    def __init__(self, lm: LanguageModel, soft: SoftPrompts | None, config: AlignConfig) -> None:
        self.lm, self.soft, self.config = lm, soft, config
        self.stream = torch.cuda.Stream(lm.device) if lm.device.type == "cuda" else None

    def load(self, step: list[PromptGroup]) -> list[tuple[AlignmentPart, float]]:
        """The parts of a step on the device, each with its share of the step's questions."""
        asked = sum(len(group.questions) for group in step)
        parts = share_parts(
            step,
            PromptGroup.n_tokens,
            lambda groups: plan_group_batches(groups, self.config.token_budget),
            lambda part: sum(len(group.questions) for group in part) / asked,
        )
        return [(self._packed(part), weight) for part, weight in parts]

    def loss(self, part: AlignmentPart) -> tuple[Tensor, int]:
        """The loss of a part, and its tokens with padding."""
        if part.arrival is not None:
            part.arrival.wait()
        vectors = self.soft.adapter(*part.histories).flatten(0, 1) if part.histories is not None else None
        hidden = batch_hidden(self.lm, part.batch, vectors)
        return answer_loss(self.lm, part.batch, hidden), part.batch.ids.numel()

    def _packed(self, groups: list[PromptGroup]) -> AlignmentPart:
        keys, groups = number_keys(groups)
        n_soft = self.soft.n_tokens if self.soft is not None else 0
        batch = collate(groups, self.lm, n_soft, with_answers=True, packed=self.lm.layout.packs(groups))
        histories = self.soft.inputs(keys) if self.soft is not None else None
        if self.stream is None:
            return AlignmentPart(batch, _known(histories, histories))
        fields = batch.trained()
        arrays = {name: tensor.numpy() for name, tensor in fields.items()}
        arrays |= {f"histories {i}": tensor.numpy() for i, tensor in enumerate(histories or ())}
        tensors, arrival = copied_together(arrays, self.lm.device, self.stream)
        batch = replace(batch, **{name: tensors[name] for name in fields})
        moved = tuple(tensors[f"histories {i}"] for i in range(len(histories))) if histories is not None else None
        return AlignmentPart(batch, _known(moved, histories), arrival)


def _known(given: tuple[Tensor, ...] | None, on_host: tuple[Tensor, ...] | None) -> tuple[Tensor, ...] | None:
    """`given`, of whose offsets, where there are some, no operator needs to ask the device."""
    if given is not None and len(given) > 1:
        know_offsets(given[1], on_host[1].numpy())
    return given
