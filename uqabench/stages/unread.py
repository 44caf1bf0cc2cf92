"""Losses and gradient norms that lie on the device until the host reads them, many at once."""

from __future__ import annotations

import torch
from torch import Tensor

EVERY = 20
"""Steps between two readings on a GPU. Each waits for all the work that was given to it."""


class Unread:
    """Loss and gradient norm of the steps since the last reading."""

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._values: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Keep a step's scalars as they are, on their device."""
        self._steps.append(step)
        self._values.append(torch.stack([loss.double(), norm.detach().double()]))

    def read(self) -> list[tuple[int, float, float]]:
        """(step, loss, norm) of each, oldest first, by one copy; nothing is unread afterwards."""
        if not self._steps:
            return []
        rows = torch.stack(self._values).tolist()
        found = [(step, loss, norm) for step, (loss, norm) in zip(self._steps, rows, strict=True)]
        self._steps, self._values = [], []
        return found
