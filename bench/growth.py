"""Several sizes of `bench.scale` side by side: `python -m bench.growth scale-0.01.json scale-0.1.json scale-1.json`.

A table in Markdown: each row at each size, by the clock or by processor time, and the exponents with which time and
memory grow: what takes c · size^a seconds has the exponent a. Of a rate it is the time of one unit that counts, so that
a rate which is the same at any size has the exponent 0.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.command import command
from uqabench.files import read_json

_GB = 10**9
_MEASURES = {"clock": "value", "processor": "value_by_cpu"}


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """a of the least-squares line log value = log c + a · log size; None for fewer than two sizes."""
    if len(set(sizes)) < 2:
        return None
    return statistics.linear_regression([math.log(x) for x in sizes], [math.log(y) for y in values]).slope


def table(results: Sequence[dict[str, Any]], by: str = "clock") -> str:
    """The table of several files' contents, the smallest size first; `by`: the clock or the processor."""
    results = sorted(results, key=lambda result: result["fraction"])
    sizes = [result["fraction"] for result in results]
    head = ["row", "goal", *(f"{100 * size:g} %" for size in sizes), "exponent of time", "exponent of memory"]
    lines = [head, ["---"] * len(head)]
    names = list(dict.fromkeys(row["name"] for result in results for row in result["rows"]))
    for name in names:
        found = [next((row for row in result["rows"] if row["name"] == name), None) for result in results]
        lines.append(
            [
                *_about(name, found),
                *(_cell(row, _MEASURES[by]) for row in found),
                *_exponents(sizes, found, _MEASURES[by]),
            ]
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _about(name: str, rows: Sequence[dict[str, Any] | None]) -> list[str]:
    row = next(row for row in rows if row is not None)
    goal, unit, peak = row["goal"], row["unit"], row.get("peak_rss_goal_bytes")
    parts = [f"{'≤' if unit in ('s', 'ms') else '≥'} {goal:,.0f} {unit}"] if goal is not None else []
    parts += [f"≤ {peak / _GB:g} GB"] if peak else []
    return [name, ", ".join(parts) or "none"]


def _cell(row: dict[str, Any] | None, measure: str) -> str:
    """A row's value and its peak of memory, or why it has none."""
    if row is None:
        return "not measured"
    if row.get("value") is None:
        return row.get("failed") or row.get("skipped") or "not measured"
    value = row[measure]
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{shown} {row['unit']}, {row['peak_rss_bytes'] / _GB:.2f} GB"


def _exponents(sizes: Sequence[float], rows: Sequence[dict[str, Any] | None], measure: str) -> list[str]:
    measured = [(size, row) for size, row in zip(sizes, rows, strict=True) if row and row.get("value") is not None]
    own = [size for size, _ in measured]
    power = 1 if measured and measured[0][1]["unit"] in ("s", "ms") else -1
    both = [row[measure] ** power for _, row in measured], [row["peak_rss_bytes"] for _, row in measured]
    found = [exponent(own, values) for values in both]
    return ["none" if each is None else f"{each:.2f}" for each in found]


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="of `python -m bench.scale --json`")
    parser.add_argument("--by", choices=_MEASURES, default="clock", help="whose time counts (default: the clock's)")
    options = parser.parse_args(arguments)
    sys.stdout.write(table([read_json(file) for file in options.files], options.by))
    return 0


if __name__ == "__main__":
    sys.exit(main())
