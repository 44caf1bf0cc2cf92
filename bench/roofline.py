"""Times every row of `bench.rows` against its baseline and its floor on this machine: `python -m bench.roofline`."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.command import check_positive, chosen_names, command
from bench.envelope import SCHEMA, check_writable, commit
from bench.machine import Machine, measure_machine
from bench.row import Call, Row, Setting
from bench.rows import ROWS
from bench.units import in_units
from uqabench.files import write_json
from uqabench.stages.memory import keep_freed_memory

EXAMPLES = """examples:
  python -m bench.roofline --json runs/roofline.json
  python -m bench.roofline --json /tmp/two.json --rows hstu,linear_rank --repeats 9
  python -m bench.roofline --json /tmp/quick.json --scale small      # seconds; the figures mean nothing

The floor of a row is FLOPs / measured GEMM rate + bytes / measured copy bandwidth; its formula is printed. Set
OMP_NUM_THREADS to choose the threads. `details` in the file has the same columns for parts and variants of a row.
"""


@dataclass(frozen=True)
class Result:
    """A line of the report: medians in seconds a call, and the peak memory beyond inputs, outputs and gradients."""

    row: str
    name: str
    baseline: str
    seconds: float
    baseline_seconds: float
    floor_seconds: float
    extra_bytes: int | None
    pairs: int

    @property
    def ratio(self) -> float:
        return self.seconds / self.floor_seconds

    @property
    def speedup(self) -> float:
        return self.baseline_seconds / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """The fields of a row in the result file."""
        return {
            "name": self.name,
            "seconds": self.seconds,
            "floor_seconds": self.floor_seconds,
            "ratio": self.ratio,
            "baseline": self.baseline,
            "baseline_seconds": self.baseline_seconds,
            "speedup": self.speedup,
            "extra_bytes": self.extra_bytes,
        }


def paired(ours: Call, baseline: Call, repeats: int, budget: float, calls: int = 1) -> tuple[list[float], list[float]]:
    """Seconds a call of ours and of the baseline, which take turns so that both see the same machine: `calls` of each
    within one timing.

    At most `repeats` pairs, and none begins that would end past `budget` seconds. Ours is called once before. A first
    pair warms up the baseline; it counts only where the budget leaves no time for another, as with baselines that take
    most of a minute and gain nothing from being warm.
    """
    begin = time.perf_counter()
    ours()
    mine, theirs = [], []
    while len(mine) <= repeats:
        start = time.perf_counter()
        mine.append(_seconds(ours, calls))
        theirs.append(_seconds(baseline, calls))
        now = time.perf_counter()
        if now - begin + (now - start) > budget:
            break
    return (mine[1:], theirs[1:]) if len(mine) > 1 else (mine, theirs)


def _seconds(call: Callable[[], object], calls: int) -> float:
    gc.collect(0)  # what the last call left; the older generations are large once transformers is imported
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def run(names: Sequence[str], machine: Machine, *, is_small: bool, repeats: int, budget: float) -> list[Result]:
    """Measures the rows in order, each with its details behind it, and prints every line as it is known.

    A row may take `budget` seconds: half for itself if it has details, which share the rest.
    """
    results = []
    for name in names:
        first, *details = ROWS[name]
        print(f"\n{name}: {first.what}", flush=True)
        formula = None
        for row in (first, *details):
            share = budget if not details else budget / 2 / (1 if row is first else len(details))
            result, floor = _run_row(row, machine, Setting("cpu", is_small), repeats, share)
            _print_line(result)
            if floor != formula:
                formula = floor
                print(f"    floor: {formula}", flush=True)
            results.append(result)
            gc.collect()  # inputs of a row take up to 2 GB
    return results


def _run_row(row: Row, machine: Machine, setting: Setting, repeats: int, budget: float) -> tuple[Result, str]:
    """The row's line, and its floor in words."""
    made, floor = row.make(setting), row.floor(setting)
    ((baseline, others),) = made.baselines.items()
    (ours,), (other,) = made.ours, others()
    with _no_collector():
        mine, theirs = paired(ours, other, repeats, budget, made.calls)
    result = Result(
        row=row.group,
        name=row.name,
        baseline=baseline,
        seconds=median(mine),
        baseline_seconds=median(theirs),
        floor_seconds=floor.on(machine),
        extra_bytes=made.extra_bytes() if made.extra_bytes else None,
        pairs=len(mine),
    )
    return result, floor.formula


@contextmanager
def _no_collector() -> Iterator[None]:
    """Python's collector would stop either side at random."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


HEADINGS = ("time", "floor", "ratio", "baseline", "speed-up", "pairs")


def _print_line(result: Result) -> None:
    cells = (
        in_units(result.seconds),
        in_units(result.floor_seconds),
        f"{result.ratio:.2f}",
        in_units(result.baseline_seconds),
        f"{result.speedup:.2f}x",
        str(result.pairs),
    )
    text = "  ".join(f"{heading} {cell:>8}" for heading, cell in zip(HEADINGS, cells, strict=True))
    memory = "" if result.extra_bytes is None else f"  extra {result.extra_bytes / 2**20:.0f} MiB"
    print(f"  {result.name:<34} {text}{memory}  [{result.baseline}]", flush=True)


def report(machine: Machine, results: Sequence[Result]) -> dict[str, Any]:
    """The result file: rows, and details with the row that they belong to."""
    return {
        "schema": SCHEMA,
        "machine": machine.to_dict(),
        "commit": commit(),
        "threads": torch.get_num_threads(),
        "rows": [result.to_dict() for result in results if result.name == result.row],
        "details": [{"row": r.row, **r.to_dict()} for r in results if r.name != r.row],
    }


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.roofline",
        description="Time the operators and encoders against the published modules and this machine's roofline.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, required=True, metavar="OUT", help="result file; replaced when all is run")
    parser.add_argument("--rows", default=",".join(ROWS), help="names with commas between (default: %(default)s)")
    parser.add_argument("--scale", choices=("full", "small"), default="full", help="small: tiny shapes, for tests")
    parser.add_argument(
        "--keep-memory", action="store_true", help="both sides keep freed memory, as training does (glibc)"
    )
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="pairs of timings a line (default: 5)")
    parser.add_argument(
        "--budget", type=float, default=90.0, metavar="S", help="seconds after which a row begins no other pair (90)"
    )
    return parser


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 for arguments that cannot be met or a file that cannot be written."""
    options = build_parser().parse_args(arguments)
    is_small = options.scale == "small"
    names = chosen_names(options.rows, ROWS, "--rows")
    check_positive(repeats=options.repeats)
    check_writable(options.json)
    sizes = {"repeats": 3, "gemm_size": 256, "copy_bytes": 4 << 20} if is_small else {}
    if options.keep_memory:
        keep_freed_memory()
    machine = measure_machine(**sizes)
    print(
        f"{machine.cpu}, {machine.isa}, {torch.get_num_threads()} threads: GEMM {machine.gemm_gflops:.1f} GFLOP/s, "
        f"copy {machine.copy_gbps:.1f} GB/s"
    )
    results = run(names, machine, is_small=is_small, repeats=options.repeats, budget=options.budget)
    write_json(options.json, report(machine, results))
    print(f"\nwritten to {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
