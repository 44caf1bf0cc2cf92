"""Batches made ready while the device works on the ones before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")

AHEAD = 2
"""Batches that wait at most: one that is being copied and one that is being packed."""


def prefetched(given: Iterable[Given], make: Callable[[Given], Made], ahead: int) -> Iterator[Made]:
    """`make` of each of `given`, in order; up to `ahead` of them made by a thread while the caller is at work.

    With ahead = 0 the caller makes each. What `make` raises is raised where its result would have come; a caller that
    stops early waits for the one that is being made at most.
    """
    if ahead == 0:
        yield from map(make, given)
        return
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="uqabench-batches") as thread:
        try:
            for one in given:
                waiting.append(thread.submit(make, one))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
