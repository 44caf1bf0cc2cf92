"""Times calls on a GPU by events, or on the host where there is none (to rehearse)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

Call = Callable[[], object]
_SLEEP_LIMIT = 0.05
"""Seconds of work that is queued behind a sleeping GPU at most."""
_CLOCK = 1.755e9


def seconds_a_call(calls: Sequence[Call], device: str, *, share: float = 0.25, slow: float = 1.5) -> float:
    """Median seconds of one call, of about `share` seconds of calls that take turns.

    Several calls on different inputs, larger together than the L2 cache, find no input there. Each is called once
    before it counts; where one call takes `slow` seconds even then, it is not called again.
    """
    once = _host_seconds(calls[0], device)
    if once > slow:
        again = _host_seconds(calls[0], device)  # the first has compiled and tuned
        if again > slow:
            return again
    for call in calls[1:]:
        call()
    once = _host_seconds(calls[0], device)
    repeats = min(60, max(5, int(share / max(once, 1e-6))))
    turns = [calls[i % len(calls)] for i in range(repeats)]
    if device != "cuda":
        return median(_host_seconds(call, device) for call in turns)
    return median(_event_seconds(turns))


def _host_seconds(call: Call, device: str) -> float:
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - start


def _event_seconds(turns: Sequence[Call]) -> list[float]:
    """Times between events around each call.

    The GPU sleeps while the host queues, as far as that is shorter than `_SLEEP_LIMIT`: then the events lie as close
    as the kernels do, and the host's own time of a call does not count.
    """
    start = time.perf_counter()
    turns[0]()
    queueing = time.perf_counter() - start
    _wait("cuda")
    batch = max(1, int(_SLEEP_LIMIT / max(queueing, 1e-6)))
    times: list[float] = []
    for begin in range(0, len(turns), batch):
        part = turns[begin : begin + batch]
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in part]
        torch.cuda._sleep(int(min(1.5 * queueing * len(part), 2 * _SLEEP_LIMIT) * _CLOCK))
        for call, (before, after) in zip(part, events, strict=True):
            before.record()
            call()
            after.record()
        _wait("cuda")
        times += [before.elapsed_time(after) / 1e3 for before, after in events]
    return times


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def poison(device: str, size: int) -> None:
    """Leave `size` bytes of NaN in the allocator: results that a kernel does not write show it."""
    if device == "cuda":
        torch.full((max(1, size // 4),), torch.nan, device=device)


def ceilings(device: str, is_small: bool) -> dict[str, float]:
    """{"tensor": FLOP/s of a large bf16 product, "memory": bytes/s of a large copy}, on this very card."""
    n, size = (128, 1 << 16) if is_small else (8192, 1 << 30)
    a, b = (torch.randn(n, n, device=device).bfloat16() for _ in range(2))
    product = seconds_a_call([lambda: a @ b], device, share=1.0)
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    copy = seconds_a_call([lambda: target.copy_(source)], device, share=0.5)
    return {"tensor": 2 * n**3 / product, "memory": 2 * source.nbytes / copy}
