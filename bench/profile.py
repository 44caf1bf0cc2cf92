"""Where the time of a row goes: `python -m bench.profile --rows hstu,trm++`.

Torch's profiler sees torch's own operations; our kernels are called past its dispatcher, so what it does not see is
theirs, and Python's. The least time that the matrix products could take is their share of the row's floor.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch.profiler import ProfilerActivity, profile

from bench.command import chosen_names, command
from bench.row import Setting
from bench.rows import ROWS
from uqabench.stages.memory import keep_freed_memory

PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkl::_mkl_linear"}


@dataclass(frozen=True)
class Shares:
    """One call of a row: its seconds, and those of each of torch's operations, what it calls left out."""

    row: str
    seconds: float
    operations: dict[str, float]

    @property
    def products(self) -> float:
        """Seconds in matrix products."""
        return sum(seconds for name, seconds in self.operations.items() if name in PRODUCTS)

    @property
    def unseen(self) -> float:
        """Seconds that torch's profiler gives to no operation: our kernels, and Python."""
        return max(0.0, self.seconds - sum(self.operations.values()))


def measure(row: str, *, is_small: bool) -> Shares:
    """Profiles the second call of the row's own side."""
    (ours,) = ROWS[row][0].make(Setting("cpu", is_small)).ours
    ours()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        ours()
        seconds = time.perf_counter() - start
    operations: Counter[str] = Counter()
    for event in profiler.key_averages():
        if event.key.startswith(("aten::", "mkl")):  # others wrap Python, where our kernels are called
            operations[event.key] += event.self_cpu_time_total / 1e6
    return Shares(row, seconds, dict(operations))


def table(shares: Sequence[Shares], most: int) -> str:
    """A line for each row: products, what torch's profiler does not see, and torch's `most` longest others."""
    lines = []
    for one in shares:
        others = sorted(((s, n) for n, s in one.operations.items() if n not in PRODUCTS), reverse=True)[:most]
        parts = [("matrix products", one.products), ("our kernels and Python", one.unseen)]
        parts += [(name.removeprefix("aten::"), seconds) for seconds, name in others]
        text = ", ".join(f"{name} {100 * seconds / one.seconds:.0f} %" for name, seconds in parts)
        lines.append(f"{one.row}: {one.seconds:.2f} s: {text}")
    return "\n".join(lines)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 for an unknown row."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="hstu,trm++,sasrec,mamba1", help="names with commas between")
    parser.add_argument("--scale", choices=("full", "small"), default="full", help="small: tiny shapes, for tests")
    parser.add_argument(
        "--most", type=int, default=4, metavar="N", help="torch's other operations to name (default: 4)"
    )
    parser.add_argument("--keep-memory", action="store_true", help="keep freed memory, as training does (glibc)")
    options = parser.parse_args(arguments)
    names = chosen_names(options.rows, ROWS, "--rows")
    if options.keep_memory:
        keep_freed_memory()
    for name in names:
        print(table([measure(name, is_small=options.scale == "small")], options.most), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
