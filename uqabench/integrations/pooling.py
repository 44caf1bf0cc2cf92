"""Pooling: a frozen encoder's states of one history reduced to a few vectors, once, before any training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from uqabench.errors import InputError

Window = int | None
"""How many items, counted back from the end of a history; None: the whole history; NEXT: what comes after it."""

NEXT: Window = 0
"""No part of a history: what its encoder expects to come next."""


@dataclass(frozen=True)
class Pooling:
    """A function from states (T, width) and offsets int64 (B+1,) to vectors of each history (B, n_vectors, width).

    `name` stands for the function in the key of the stored vectors: another function needs another name. windows: of
    which last items each vector is the mean, where they are such means. scores: whether the weights by which the
    encoder scores items are kept beside the vectors.
    """

    name: str
    n_vectors: int
    function: Callable[[Tensor, Tensor], Tensor]
    windows: tuple[Window, ...] | None = None
    scores: bool = False

    def __call__(self, states: Tensor, offsets: Tensor) -> Tensor:
        """Pooled vectors (B, n_vectors, width); InputError where the function returns another shape."""
        pooled = self.function(states, offsets)
        wanted = (len(offsets) - 1, self.n_vectors, states.shape[1])
        if not isinstance(pooled, Tensor) or tuple(pooled.shape) != wanted:
            got = tuple(pooled.shape) if isinstance(pooled, Tensor) else type(pooled).__name__
            raise InputError(f"The pooling {self.name} returned {got}: it must return a tensor {wanted}.")
        return pooled


def window_name(window: Window) -> str:
    """ "mean" of the whole history, "last" item, "last-n" items, "next" for what comes next."""
    if window == NEXT:
        return "next"
    return "mean" if window is None else "last" if window == 1 else f"last-{window}"


def window_means(*windows: Window) -> Pooling:
    """The pooling whose vectors are the means of the states of the last n items, one vector for each window.

    For NEXT that is the last state, from which an encoder predicts. A history shorter than a window counts whole; the
    vectors of an empty history are zero. InputError for a window that is no positive number.
    """
    for window in windows:
        if window is not None and window != NEXT and window < 1:
            raise InputError(f"window_means: a window must be a positive number of items or None, not {window}.")
    sizes = [1 if window == NEXT else window for window in windows]

    def means(states: Tensor, offsets: Tensor) -> Tensor:
        starts, ends = offsets[:-1], offsets[1:]
        begins = [starts if size is None else torch.maximum(starts, ends - size) for size in sizes]
        pooled = span_means(states, torch.cat(begins), ends.repeat(len(windows)))
        return pooled.view(len(windows), len(starts), states.shape[1]).transpose(0, 1)

    return Pooling("+".join(map(window_name, windows)), len(windows), means, windows, scores=NEXT in windows)


def span_means(states: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Means of rows [start, end): states (T, width), int64 starts and ends (S,) → (S, width); zeros for no rows.

    Sums in float32 at least; the result has the dtype of `states`. Spans of one length are one reduction of
    (spans, length, width), so a mean has the bits of `states[start:end].mean(0)` whatever else is in the batch; a
    segment reduction or `index_add` sums in another order.
    """
    lengths = ends - starts
    wide = torch.promote_types(states.dtype, torch.float32)
    means = torch.zeros(len(starts), states.shape[1], dtype=wide, device=states.device)
    for length in torch.unique(lengths[lengths > 0]).tolist():
        spans = torch.nonzero(lengths == length)[:, 0]
        rows = starts[spans, None] + torch.arange(length, device=states.device)
        means = means.index_copy(0, spans, states[rows].to(wide).mean(dim=1))
    return means.to(states.dtype)
