"""How a long-running process uses the C library's memory."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # mallopt(3)
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Has glibc keep what is freed for the next request, up to the process's end; False where that is not possible.

    By default it asks the system for each block above 32 MiB and gives it back at once, and the system fills every new
    page with zeros. Training asks for the same blocks at every step: at HSTU's published size and 2,193 tokens, a step
    takes 2.6 s instead of 3.3. The process holds its peak of memory until it ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _NEVER))


def peak_bytes(call: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that `call` needs at its peak beyond what was held before it.

    On a GPU torch's allocator counts them. On CPU it is the process's resident memory, which is less where freed memory
    is used again; None where the system cannot reset its peak (it takes Linux and a writable /proc/self/clear_refs).
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts again from here
        before = _status_bytes("VmRSS")
        call()
        return max(0, _status_bytes("VmHWM") - before)
    except OSError:
        return None


def _status_bytes(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
