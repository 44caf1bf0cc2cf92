"""The decorator of compiled functions that only compiled functions call; `entries` holds the others."""

from __future__ import annotations

import numba

inner = numba.njit(nogil=True)
