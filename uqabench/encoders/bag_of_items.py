"""The control without a sequence model: the states are what an encoder is given of each item."""

from __future__ import annotations

from torch import Tensor, nn

from uqabench.encoders.registry import register


@register("bag-of-items")
class BagOfItems(nn.Module):
    """No layers: a state is the item tower's output of its own item. Pooled, they say which items a history has, and
    nothing of their order; what an encoder's layers add to that is the difference to this."""

    causal = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor, offsets: Tensor, timestamps: Tensor | None = None) -> Tensor:
        """(T, width), as it came."""
        return x
