"""Which keys a query sees where targets, a local window or a contextual prefix say more than "its own and earlier".

Every token of a sequence stands at a step: the prefix's all at 0, the others of the history at 1, 2, ..., and every
target at the step after the history's last. A query sees itself, the keys of lower steps, of which a window keeps the
nearest, and, if it is of the prefix, the whole history. These are the pairs of generative-recommenders' operator.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..checks import host_array, host_lengths


class Limits(NamedTuple):
    """num_targets: int64 (B,) or None; 0 means no window and no prefix."""

    num_targets: Tensor | None = None
    max_attn_len: int = 0
    contextual_seq_len: int = 0

    @property
    def are_none(self) -> bool:
        """Whether a query sees exactly its own and the earlier keys."""
        return self.num_targets is None and self.max_attn_len == 0 and self.contextual_seq_len == 0


def history_lengths(offsets: Tensor, limits: Limits) -> np.ndarray:
    """The tokens of each sequence that are no targets, as the host's int64 (B,)."""
    lengths = np.array(host_lengths(offsets), dtype=np.int64)
    return lengths if limits.num_targets is None else lengths - host_array(limits.num_targets)


class Steps:
    """The steps of some sequences' tokens, whose histories have `history` int64 (G,) tokens (the host's)."""

    def __init__(self, history: np.ndarray, limits: Limits, device: torch.device) -> None:
        self.window, self.device = limits.max_attn_len, device
        self.history = history
        self.prefix = np.minimum(history, limits.contextual_seq_len)
        self._history, self._prefix = (torch.from_numpy(x).to(device)[:, None] for x in (self.history, self.prefix))

    def of(self, positions: Tensor) -> Tensor:
        """Steps int64 (G, n) of positions int64 (n,) or (G, n)."""
        return (torch.minimum(positions, self._history) - self._prefix + 1).clamp_(min=0)

    def seen(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Bool (G, n, m): whether the queries at positions (n,) or (G, n) see the keys at positions (m,) or (G, m)."""
        query, key = self.of(queries)[..., :, None], self.of(keys)[..., None, :]
        ahead = query - key
        seen = ahead > 0
        if self.window:
            seen &= ahead <= self.window
        seen |= (query == 0) & (key <= (self._history - self._prefix)[..., None])
        return seen | (queries[..., :, None] == keys[..., None, :])

    def first_key(self, query: int) -> int:
        """The least position of a key that a query from position `query` on sees in any of the sequences."""
        if not self.window:
            return 0
        at = np.minimum(query, self.history)
        nearest = np.where(at - self.prefix + 1 <= self.window, 0, at - self.window)
        return int(nearest.min(initial=query))

    def last_key(self, first: int, last: int) -> int:
        """The position past the last key that queries [first, last) see in any of the sequences, prefix included."""
        reached = np.where(first < self.prefix, self.history, last)
        return int(max(last, reached.max(initial=last)))
