"""The table that bench.gpu ends with, and a line for each goal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.gpu.goals import percent
from bench.units import in_units

_RATE = {"tensor": ("TFLOP/s", 1e12), "memory": ("GB/s", 1e9)}


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The whole closing text of a result file: machine, rows, steps, goals."""
    machine, ceilings = report["machine"], report["ceilings"]
    yield f"{machine['gpu']}, torch {machine['torch']}, triton {machine['triton']}"
    if ceilings:
        yield (
            f"measured ceilings: {ceilings['tensor'] / 1e12:.0f} TFLOP/s (bf16 product), "
            f"{ceilings['memory'] / 1e9:,.0f} GB/s (copy)"
        )
    if report["rows"]:
        yield ""
        yield from aligned([HEAD, *(cells(row, ceilings) for row in report["rows"])])
    yield ""
    for step in report["steps"]:
        yield f"step {step['name']}: {step['result']} ({step['seconds']:.0f} s) {step['text']}".rstrip()
    yield ""
    for verdict in report["goals"]:
        yield judged_line(verdict)


def judged_line(verdict: Mapping[str, Any]) -> str:
    """One goal: PASS, FAIL or ----, and the figures."""
    word = {True: "PASS", False: "FAIL", None: "----"}[verdict["passed"]]
    return f"{word}  {verdict['goal']}: {verdict['text']}"


HEAD = ("row", "backend", "time", "rate", "of ceiling", "error", "other ways")


def cells(row: Mapping[str, Any], ceilings: Mapping[str, float]) -> tuple[str, ...]:
    """One line of the table; a row that failed says why."""
    if "seconds" not in row:
        return row["name"], "", "failed", "", "", "", row.get("problem", "")
    unit, size = _RATE[row["unit"]]
    share, error = percent(row, ceilings), row.get("error")
    others = "; ".join(
        f"{name} {in_units(other['seconds'])} ({other['seconds'] / row['seconds']:.1f}x)"
        if other["seconds"]
        else f"{name}: {(other['problem'] or '')[:60]}"
        for name, other in row.get("baselines", {}).items()
    )
    return (
        row["name"],
        row["backend"],
        in_units(row["seconds"]),
        f"{row['rate'] / size:,.0f} {unit}",
        "" if share is None else f"{share:.1f} %",
        "" if error is None else f"{error:.1e}" + ("" if row.get("agrees") else " WRONG"),
        others,
    )


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as their longest cell."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
