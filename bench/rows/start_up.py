"""What importing a part of uqabench takes, in a fresh interpreter, against importing the library that it stands on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter

from bench.rows.row import Floor, Measure, Row

# Each part, and what it cannot do without: an interpreter that imports that is the baseline.
PARTS = (
    ("uqabench.encoders", "torch"),
    ("uqabench.kernels", "torch"),
    ("uqabench.data", "numpy, numba, pyarrow"),
    ("uqabench.questions", "sys"),
)


def _interpreter(modules: str) -> Callable[[], None]:
    return lambda: subprocess.run([sys.executable, "-c", f"import {modules}"], check=True) and None


def _seconds(call: Callable[[], None], repeats: int = 3) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return median(times)


def _build(is_small: bool) -> list[Measure]:
    parts = PARTS[-1:] if is_small else PARTS
    seconds = {base: _seconds(_interpreter(base), 1 if is_small else 3) for base in {base for _, base in parts}}

    def measure(name: str, part: str, base: str) -> Measure:
        floor = Floor(f"time of an interpreter that imports {base}, measured", seconds=seconds[base])
        return Measure(name, _interpreter(part), floor, f"import {base}", _interpreter(base))

    return [measure("start_up", *parts[0]), *(measure(f"import {part}", part, base) for part, base in parts[1:])]


ROWS = (Row("start_up", "a fresh interpreter that imports the encoders", _build),)
