"""The whole history and its end, apart."""

from __future__ import annotations

from uqabench.integrations.linear import WindowTokens
from uqabench.integrations.registry import register


@register("mean+last")
class MeanAndLast(WindowTokens):
    """Two soft tokens: the mean of all states, and the last state, each through a Linear of its own."""

    windows = (None, 1)
