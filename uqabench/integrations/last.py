"""What an encoder says at the end of a history: the state from which it would predict the next item."""

from __future__ import annotations

from uqabench.integrations.linear import WindowTokens
from uqabench.integrations.registry import register


@register("last")
class Last(WindowTokens):
    """One soft token: the last state through a Linear. It starts at the regression onto the last item's text."""

    windows = (1,)
