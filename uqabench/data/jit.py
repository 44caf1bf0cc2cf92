"""Compiled loops."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the interpreter lock, keeping the machine code on disk from one process to the next.

    Numba keeps it beside the source or in the user's cache folder. Where neither can be written (a read-only
    installation without a home), a private folder among the temporary files serves; without that, it is not kept.
    """
    try:
        return numba.njit(function, cache=True, nogil=True)
    except RuntimeError:  # numba finds no place for its cache
        folder = _private_folder()
    if folder is None:
        return numba.njit(function, nogil=True)
    numba.config.CACHE_DIR = str(folder)
    return numba.njit(function, cache=True, nogil=True)


def _private_folder() -> Path | None:
    """A folder that nobody else can write to: machine code found there is run."""
    if not hasattr(os, "getuid"):
        return None
    folder = Path(tempfile.gettempdir()) / f"uqabench-numba-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return folder if mine and os.access(folder, os.W_OK) else None
