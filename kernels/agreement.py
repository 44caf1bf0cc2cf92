"""How processes that train together come to one choice of a kernel's configuration."""

from __future__ import annotations

from collections.abc import Callable


def _alone(place: str, measure: Callable[[], str]) -> str:
    return measure()


agree: Callable[[str, Callable[[], str]], str] = _alone
"""`agree(place, measure)`: what `measure()` returned for this place in the process that came to it first, which is this
one where there is no other. Who starts several processes replaces it."""
