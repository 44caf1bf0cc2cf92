"""Soft vectors that the small language model learns to read: exact ones, and what a regression makes of them.

An adapter hands the model a linear regression of a history's vector on an encoder's states. Of the exact vector that
keeps the directions in which histories differ most, and shrinks the others towards zero. Training on exact vectors with
white noise would teach the model to expect what no encoder gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from uqabench.integrations.pooling import NEXT, Window
from uqabench.llm.history import HistoryTokens, last_items
from uqabench.llm.language_model import LanguageModel
from uqabench.llm.prompts import PromptBuilder

AHEAD = 10
"""What comes next are the next ten items."""
NEXT_NOISE = 5.0
"""How much noisier a view of what comes next is than one of the history. With 16 times the vector's own variance it
tells as much of next items as the scores of an encoder after some hundred steps on a year of baskets."""


class Shown(NamedTuple):
    """What a document's vectors are made of: items of the history, and those that come next."""

    history: np.ndarray
    following: np.ndarray


@dataclass(frozen=True)
class _Moments:
    """Of the mean token embeddings of many histories' last items: mean (width,), the factor that takes the spread to a
    token embedding's (), and variances (width,) and directions (width, width) of what is then their covariance."""

    mean: Tensor
    factor: Tensor
    variances: Tensor
    directions: Tensor


class SoftVectors:
    """Vectors of histories' windows as `llm.history` defines them, under embeddings that train."""

    def __init__(self, lm: LanguageModel, builder: PromptBuilder) -> None:
        self.lm = lm
        self.tokens = HistoryTokens(lm, builder)
        self._moments: dict[Window, _Moments] = {}

    @property
    def weight(self) -> Tensor:
        """The model's token embeddings (V, width)."""
        return self.lm.model.get_input_embeddings().weight

    @property
    def rms(self) -> Tensor:
        """Root mean square of the token embeddings."""
        return self.weight.detach().square().mean().sqrt()

    @torch.no_grad()
    def measure(self, documents: Sequence[Shown], windows: Iterable[Window]) -> None:
        """Take mean, spread and covariance of each window from these documents, at least two."""
        for window in windows:
            means = self._means(documents, window)
            centred = means - means.mean(0)
            factor = self.rms / centred.square().mean().sqrt().clamp_min(1e-8)
            variances, directions = torch.linalg.eigh(
                (centred.T @ centred).double() * factor.double() ** 2 / len(means)
            )
            self._moments[window] = _Moments(means.mean(0), factor, variances.clamp_min(0).float(), directions.float())

    def of(self, documents: Sequence[Shown], windows: Sequence[Window]) -> Tensor:
        """Exact vectors (documents, windows, width) with gradient to the embeddings; `measure` comes first."""
        vectors = []
        for window in windows:
            moments = self._moments[window]
            vectors.append((self._means(documents, window) - moments.mean) * moments.factor)
        return torch.stack(vectors, dim=1)

    def as_regressed(self, vectors: Tensor, windows: Sequence[Window], noise: float) -> Tensor:
        """What a least-squares regression predicts of `vectors` (n, windows, width) from a noisy view of them.

        The view is the vector with white noise of variance s times its own mean variance, s = noise · u² with u uniform
        in [0, 1] for each vector; in direction i, of variance λ_i, the best linear prediction multiplies the view by
        λ_i / (λ_i + s λ̄).
        """
        seen = []
        for place, window in enumerate(windows):
            moments = self._moments[window]
            most = noise * (NEXT_NOISE if window == NEXT else 1.0)
            white = torch.rand(len(vectors), 1).square() * most * moments.variances.mean()
            view = vectors[:, place] @ moments.directions
            view = view + white.sqrt() * torch.randn(view.shape)
            kept = moments.variances / (moments.variances + white).clamp_min(1e-12)
            seen.append((kept * view) @ moments.directions.T)
        return torch.stack(seen, dim=1)

    def state(self) -> dict[int, dict[str, Tensor]]:
        """The moments by window (-1: the whole history), for a checkpoint."""
        return {-1 if window is None else window: dict(vars(moments)) for window, moments in self._moments.items()}

    def restore(self, state: dict[int, dict[str, Tensor]]) -> None:
        """Take the moments from a checkpoint's `state`."""
        self._moments = {None if window < 0 else window: _Moments(**moments) for window, moments in state.items()}

    def _means(self, documents: Sequence[Shown], window: Window) -> Tensor:
        if window == NEXT:
            items = [document.following for document in documents]
        else:
            items = last_items([document.history for document in documents], window)
        ids, starts = self.tokens.bags(items)
        return embedding_bag(ids, self.weight, starts, mode="mean")


def scaled(vectors: Tensor, rms: Tensor) -> Tensor:
    """Each vector of the last axis at the given root mean square."""
    return vectors * (rms / vectors.detach().square().mean(-1, keepdim=True).sqrt())
