"""What both passes of HSTU attention take beside q, k and v."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .visible import Limits


class Settings(NamedTuple):
    """In the order of the operator's arguments; see `hstu_attention`."""

    offsets: Tensor
    max_len: int
    scale: float
    position_bias: Tensor | None
    time_bias: Tensor | None
    timestamps: Tensor | None
    num_targets: Tensor | None = None
    max_attn_len: int = 0
    contextual_seq_len: int = 0

    @property
    def limits(self) -> Limits:
        """What says which keys a query sees."""
        return Limits(self.num_targets, self.max_attn_len, self.contextual_seq_len)
