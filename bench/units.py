"""Figures as people read them."""

from __future__ import annotations


def in_units(seconds: float) -> str:
    """Three digits in s, ms or us."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"
