"""The most memory that a call needs at once, on Linux."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path


def peak_extra_bytes(call: Callable[[], object], kept_bytes: int) -> int | None:
    """Peak resident memory during `call` above that before it, less `kept_bytes` that it leaves (outputs, gradients).

    None where the system cannot reset the peak (it takes Linux and a writable /proc/self/clear_refs). Resident memory
    counts pages touched, so space that the allocator held back from earlier calls must be returned first.
    """
    gc.collect()
    _trim()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        before = _status_bytes("VmRSS")
        result = call()
        peak = _status_bytes("VmHWM")
    except (OSError, KeyError):
        return None
    del result
    return max(0, peak - before - kept_bytes)


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return int(values[field].split()[0]) * 1024


def _trim() -> None:
    """Return freed memory to the system, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
