"""Compiled loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the interpreter lock, keeping the machine code on disk where any cache folder is writable."""
    try:
        return numba.njit(function, cache=True, nogil=True)
    except RuntimeError:  # numba finds no place for its cache: an installation and a home that cannot be written
        return numba.njit(function, nogil=True)
