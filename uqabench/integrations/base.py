"""What an integration is: the way from a frozen encoder's states to soft tokens of the language model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from uqabench.integrations.pooling import Pooling, Window


class IntegrationSettings(Protocol):
    """The settings of alignment that an integration may read (`AlignConfig`). n_queries: learned queries."""

    @property
    def n_queries(self) -> int: ...


@dataclass(frozen=True)
class TrainingHistories:
    """The n histories that training questions are about: what an adapter may start from.

    users int64 (n,): whose history it is; histories of one user are alike. inputs(rows int64 (m,)): what the adapter
    takes for these histories, `(pooled,)` or `(states, offsets)`. vectors(window): (n, LLM width) float, the language
    model's own vector of the last `window` items (`uqabench.llm.history`), or for NEXT of what the encoder expects.
    """

    users: Tensor
    inputs: Callable[[Tensor], tuple[Tensor, ...]]
    vectors: Callable[[Window], Tensor]

    def all_inputs(self) -> tuple[Tensor, ...]:
        """The inputs of all histories at once; pooled vectors are small, all states may not be."""
        return self.inputs(torch.arange(len(self.users)))


class Integration(ABC):
    """How an encoder's states become soft tokens. A subclass needs no arguments to be made.

    With a `pooling` the frozen states are reduced to a few vectors a history once, and the adapter maps these
    (B, n_vectors, width) to soft tokens (B, n_tokens, LLM width). Without one the adapter takes all states (T, width)
    and offsets int64 (B+1,).
    """

    pooling: Pooling | None = None

    @property
    def needs_states(self) -> bool:
        """Whether all states of a history are kept, not pooled vectors only."""
        return self.pooling is None

    @property
    def kept(self) -> str:
        """What is kept of an encoder's output, in a word: integrations that keep the same share it."""
        return "states" if self.pooling is None else self.pooling.name

    @abstractmethod
    def n_tokens(self, settings: IntegrationSettings) -> int:
        """Soft tokens a history."""

    @abstractmethod
    def build(self, width: int, llm_width: int, token_rms: float, settings: IntegrationSettings) -> nn.Module:
        """A fresh adapter. token_rms: root mean square of the language model's token embeddings, which soft tokens
        should have too."""

    def initialise(self, adapter: nn.Module, histories: TrainingHistories) -> dict[str, float]:
        """Start the adapter in place from training histories, before any gradient step; returns metrics of the fit.

        By default the adapter stays as `build` made it.
        """
        return {}
