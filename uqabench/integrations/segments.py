"""A history at every scale: what a single mean forgets of order, windows of doubling length keep."""

from __future__ import annotations

from uqabench.integrations.linear import WindowTokens
from uqabench.integrations.registry import register

WINDOWS = (None, 64, 32, 16, 8, 4, 2, 1)
"""The windows of `segments`: the whole history, then the last 64, 32, … items down to the last one."""


@register("segments")
class Segments(WindowTokens):
    """Eight soft tokens: means of all states and of the last 64, 32, 16, 8, 4, 2 and 1, each through its own Linear.

    The windows are nested, so that none is empty and each token is a history of its own: in a history shorter than a
    window the token is that of the whole.
    """

    windows = WINDOWS
