"""Seconds of a measurement by the clock and by the processor, and what a row of `bench.scale` comes to."""

from __future__ import annotations

import time
from typing import Any, NamedTuple


class Stopwatch:
    """Seconds since it was made: of the wall clock, and of the processor in this process.

    before: seconds of the processor from the start of the process to this: imports, and compiled code that is loaded,
    or made where the machine has not kept it.
    """

    def __init__(self) -> None:
        self._wall, self.before = time.perf_counter(), time.process_time()

    @property
    def wall(self) -> float:
        return time.perf_counter() - self._wall

    @property
    def cpu(self) -> float:
        return time.process_time() - self.before


class Result(NamedTuple):
    """A row's value, the same by the processor time of this process (what a machine that nobody shares would come near
    to), the seconds of both that were measured and those of the processor before, and what else is worth keeping."""

    value: float
    by_cpu: float
    wall: float
    cpu: float
    before: float
    more: dict[str, Any]

    @classmethod
    def seconds(cls, watch: Stopwatch, **more: Any) -> Result:
        """What the watch shows."""
        wall, cpu = watch.wall, watch.cpu
        return cls(wall, cpu, wall, cpu, watch.before, more)

    @classmethod
    def rate(cls, amount: float, watch: Stopwatch, **more: Any) -> Result:
        """An amount a second."""
        wall, cpu = watch.wall, watch.cpu
        return cls(amount / wall, amount / cpu, wall, cpu, watch.before, more)
