"""How a long-running process uses the C library's memory."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from itertools import accumulate

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


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Bytes of tensors that `call` holds at its peak beyond what was held before it: those of torch's allocator for the
    device, so that memory which is used again counts and the libraries' own scratch space does not."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(held, default=0)
