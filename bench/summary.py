"""One report from several runs on one machine, and its table in Markdown: `python -m bench.summary FILE...`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.command import command
from bench.envelope import SCHEMA
from bench.row import Setting
from bench.rows import ROWS
from bench.units import in_units
from uqabench.errors import InputError
from uqabench.files import write_json

EXAMPLES = """examples:
  python -m bench.summary bench/results/MACHINE.json                       # the table
  python -m bench.summary runs/1.json runs/2.json runs/3.json --json OUT   # medians of three runs, and the table
"""

FIGURES = ("seconds", "floor_seconds", "ratio", "baseline_seconds", "speedup")


def read_report(path: Path) -> dict[str, Any]:
    """A result file of `bench.roofline` or of this module; InputError if it is none."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a result file ({error}).") from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA or "rows" not in report:
        raise InputError(f"{path} is no result file of schema {SCHEMA}: make one with `python -m bench.roofline`.")
    return report


def combine(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The first report's envelope with every figure's median over the reports, and its `spread` [least, most].

    Raises InputError where the reports come from different processors, instruction sets, threads or rows.
    """
    first = reports[0]
    for other in reports[1:]:
        for name, mine, its in _traits(first, other):
            if mine != its:
                raise InputError(f"The reports differ in {name}: {mine} and {its}. Combine runs of one kind only.")
    machine = {
        name: median(r["machine"][name] for r in reports) if isinstance(value, float) else value
        for name, value in first["machine"].items()
    }
    rows = {part: [_combined(rows) for rows in zip(*(r[part] for r in reports), strict=True)] for part in PARTS}
    return {**first, "machine": machine, "runs": len(reports), **rows}


PARTS = ("rows", "details")


def _traits(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    def names(report: dict[str, Any]) -> list[str]:
        return [row["name"] for part in PARTS for row in report[part]]

    fixed = [(name, a["machine"][name], b["machine"][name]) for name in ("cpu", "isa")]
    return [*fixed, ("threads", a["threads"], b["threads"]), ("rows", names(a), names(b))]


def _combined(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    spread = {name: [min(r[name] for r in rows), max(r[name] for r in rows)] for name in FIGURES}
    extra = [r["extra_bytes"] for r in rows if r["extra_bytes"] is not None]
    figures = {name: median(r[name] for r in rows) for name in FIGURES}
    return {**rows[0], **figures, "extra_bytes": max(extra, default=None), "spread": spread}


def table(report: dict[str, Any]) -> str:
    """The rows in Markdown, below a line about the machine."""
    machine = report["machine"]
    runs = f", medians of {report['runs']} runs" if "runs" in report else ""
    lines = [
        f"{machine['cpu']}, {machine['isa']}, {report['threads']} threads, float32: matrix products "
        f"{machine['gemm_gflops']:.0f} GFLOP/s, copies {machine['copy_gbps']:.0f} GB/s{runs}.",
        "",
        "| row | what | time | × its floor | × faster than | tokens/s |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_line(row) for row in report["rows"])])


def _line(row: dict[str, Any]) -> str:
    known = ROWS[row["name"]][0]
    tokens = f"{known.tokens(Setting('cpu', is_small=False)) / row['seconds']:,.0f}" if known.tokens else ""
    spread = row.get("spread", {}).get("ratio")
    ratio = f"{row['ratio']:.2f}" + (f" ({spread[0]:.2f} to {spread[1]:.2f})" if spread else "")
    cells = (
        row["name"],
        known.what,
        in_units(row["seconds"]),
        ratio,
        f"{row['speedup']:.3g} × {row['baseline']}",
        tokens,
    )
    return "| " + " | ".join(cells) + " |"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.summary",
        description="Combine result files of the roofline report and print their table in Markdown.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="result files of one machine")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the combined report")
    return parser


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 for files that cannot be read or do not belong together."""
    options = build_parser().parse_args(arguments)
    reports = [read_report(path) for path in options.files]
    report = combine(reports) if len(reports) > 1 else reports[0]
    if options.json:
        write_json(options.json, report)
    print(table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
