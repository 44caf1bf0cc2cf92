"""The decorator of compiled functions that only compiled functions call; `entries` makes the ones that Python calls."""

from __future__ import annotations

import numba

inner = numba.njit(nogil=True)
