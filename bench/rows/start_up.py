"""What importing a part of uqabench takes, in a fresh interpreter, against importing the library that it stands on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from statistics import median
from time import perf_counter

from bench.row import Floor, Made, Row, Setting

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


@cache
def _floor(base: str, repeats: int) -> Floor:
    formula = f"time of an interpreter that imports {base}, measured"
    return Floor(formula=formula, seconds=_seconds(_interpreter(base), repeats))


def _row(name: str, part: str, base: str, what: str = "") -> Row:
    def chosen(setting: Setting) -> tuple[str, str]:
        return ("json", "sys") if setting.is_small else (part, base)

    def make(setting: Setting) -> Made:
        ours, other = chosen(setting)
        return Made([_interpreter(ours)], {f"import {other}": lambda: [_interpreter(other)]})

    def floor(setting: Setting) -> Floor:
        return _floor(chosen(setting)[1], 1 if setting.is_small else 3)

    return Row(name, "start_up", floor, make, what=what)


def rows() -> Iterator[Row]:
    (part, base), *others = PARTS
    yield _row("start_up", part, base, "a fresh interpreter that imports the encoders")
    for part, base in others:
        yield _row(f"import {part}", part, base)
