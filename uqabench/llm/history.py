"""A history as one vector: the mean token embedding of its text, centred and scaled like a token embedding.

The mean of some thousand token embeddings is mostly the part that all histories share (separators, common words);
what tells users apart is a tenth of its length and would drown in the model's first normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from uqabench.llm.language_model import LanguageModel
from uqabench.llm.prompts import PromptBuilder


class HistoryTokens:
    """Token ids of each item's line of text, looked up once an item."""

    def __init__(self, lm: LanguageModel, builder: PromptBuilder) -> None:
        self._lm, self._builder = lm, builder
        self._ids: dict[int, np.ndarray] = {}

    def of(self, items: np.ndarray) -> np.ndarray:
        """Concatenated token ids (n,) of the items' lines."""
        missing = [item for item in dict.fromkeys(items.tolist()) if item not in self._ids]
        if missing:
            encoded = self._lm.encode([self._builder.item_line(item) + "\n" for item in missing])
            self._ids.update({item: np.array(ids, dtype=np.int64) for item, ids in zip(missing, encoded, strict=True)})
        return np.concatenate([self._ids[item] for item in items.tolist()])

    def bags(self, histories: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        """ids (n,) and bag starts (len(histories),) for `embedding_bag`."""
        return token_bags([self.of(items) for items in histories])


def token_bags(lists: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Lists of token ids as `embedding_bag` takes them: ids int64 (n,) and where each list starts (len(lists),)."""
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in lists])[:-1]])
    ids = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in lists])
    return torch.from_numpy(ids), torch.from_numpy(starts.astype(np.int64))


def history_vectors(weight: Tensor, ids: Tensor, starts: Tensor, among: Tensor | None = None) -> Tensor:
    """Vectors (n, width) of n histories given as `HistoryTokens.bags`, with gradient to `weight` (V, width).

    Centred over these histories and scaled to the root mean square of the embedding table, without which a single
    vector would be zero: give at least two histories. among: indices of those histories whose mean and spread count,
    if not all do.
    """
    mean = embedding_bag(ids.to(weight.device), weight, starts.to(weight.device), mode="mean")
    known = mean.detach() if among is None else mean.detach()[among.to(mean.device)]
    centre = known.mean(0)
    centred = mean - centre
    spread = (known - centre).square().mean().sqrt().clamp_min(1e-8)
    return centred * (weight.detach().square().mean().sqrt() / spread)


def last_items(histories: Sequence[np.ndarray], window: int | None) -> list[np.ndarray]:
    """The last `window` items of each history; None: all of them."""
    return [items[-(window or 0) :] for items in histories]


def window_text(window: int | None) -> str:
    """What a soft token of a history's last `window` items (0: of what comes next) is called; the whole has no name."""
    if window is None:
        return ""
    return {0: "next items", 1: "last item"}.get(window, f"last {window} items")


def window_marker(lm: LanguageModel, window: int | None) -> Tensor:
    """What is added to every vector of a history's last `window` items: (width,), with gradient to the embeddings.

    The mean embedding of the window's name, as large as a token embedding; zeros for the whole history. Soft tokens
    have no order that a model with relative positions could tell, so each says which part of the history it stands for.
    """
    weight = lm.model.get_input_embeddings().weight
    text = window_text(window)
    if not text:
        return weight.new_zeros(weight.shape[1])
    mean = weight[torch.tensor(lm.encode([text])[0], device=weight.device)].mean(0)
    return mean * (weight.detach().square().mean().sqrt() / mean.detach().square().mean().sqrt().clamp_min(1e-8))
