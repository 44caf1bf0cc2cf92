"""Help while the small language model learns: what should be known at the end of each option, asked half-way up.

To name the right letter a model has to compare every option with the history, remember each option's letter, and carry
the winner's to the answer; the loss on the answer alone says nothing about the first two steps until all three work.
Two linear heads on a middle layer, thrown away after training, ask for them directly. Matching a value with a soft
vector then begins to be learned after 150 steps; without them it had not after 300 (and not after 1,000 in text).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from uqabench.llm.batches import GroupBatch
from uqabench.llm.language_model import LanguageModel
from uqabench.vocabulary import LETTERS


class OptionProbe(nn.Module):
    """Two heads at each option's end, on the states of a middle layer: is it the right one, and which letter has it."""

    def __init__(self, lm: LanguageModel) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(lm.width)
        self.heads = nn.Linear(lm.width, 1 + len(LETTERS))
        tokens = lm.encode([f"{letter}. " for letter in LETTERS])
        self.letters = [ids[0] for ids in tokens]
        self.newline = lm.encode(["\n"])[0][0]

    def option_ends(self, batch: GroupBatch) -> Tensor:
        """Flat positions (Q, 4) of the line breaks behind the options of each question: A, B, C, D."""
        flat, place = batch.ids.reshape(-1), batch.prompt_end
        line_breaks = torch.nonzero(flat == self.newline)[:, 0]
        ends = [_last_before(line_breaks, place)]
        for letter in reversed(self.letters):
            place = _last_before(torch.nonzero(flat == letter)[:, 0], place)
            ends.append(place - 1)
        return torch.stack(ends[-2::-1], dim=1)

    def forward(self, states: Tensor, batch: GroupBatch) -> Tensor:
        """Loss on the middle layer's `states` (R·L, width): cross entropy among four options, plus of four letters."""
        ends = self.option_ends(batch)
        logits = self.heads(self.norm(states.index_select(0, ends.reshape(-1)))).view(*ends.shape, -1)
        which = torch.arange(len(LETTERS)).expand(len(ends), -1)
        return cross_entropy(logits[..., 0], batch.answers) + cross_entropy(
            logits[..., 1:].flatten(0, 1), which.flatten()
        )


def _last_before(positions: Tensor, place: Tensor) -> Tensor:
    """For each of `place` (Q,) the last of the ascending `positions` before it."""
    return positions[torch.searchsorted(positions, place) - 1]
