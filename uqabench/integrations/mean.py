"""The paper's mean pooling (§4.3.2)."""

from __future__ import annotations

from uqabench.integrations.linear import WindowTokens
from uqabench.integrations.registry import register


@register("mean-pooling")
class MeanPooling(WindowTokens):
    """One soft token: the mean of all states through a Linear."""

    windows = (None,)
