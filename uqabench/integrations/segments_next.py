"""A history at every scale, and what its encoder expects next."""

from __future__ import annotations

from uqabench.integrations.linear import WindowTokens
from uqabench.integrations.pooling import NEXT
from uqabench.integrations.registry import register


@register("segments+next")
class SegmentsAndNext(WindowTokens):
    """Eight soft tokens: means of all states and of the last 32, 16, 8, 4, 2 and 1, and the last state once more for
    what comes next.

    An encoder is trained to score the next item, and the language model knows an item by its words. The last token
    starts where its likeness to an item's words is the score that the encoder gives that item.
    """

    windows = (None, 32, 16, 8, 4, 2, 1, NEXT)
