"""How the data path bears the paper's size: `python -m bench.scale --fraction 0.1 --json FILE`.

Each row runs in a process of its own, whose peak of resident memory is the row's. The log is synthetic, of the
fraction of the paper's users, items and interactions that is asked for; goals are those for the whole, on two cores.
`python -m bench.growth FILE FILE…` sets several sizes side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from bench.command import check_positive, chosen_names, command
from bench.envelope import check_writable, commit
from uqabench.files import read_json, write_json

_GB = 10**9


class Step(NamedTuple):
    """What is measured, by a function of the folder of the log and the store; goals are those at the whole size.

    unit: s and ms are to be at most the goal, others at least. peak_goal: bytes of resident memory, at most.
    """

    module: str
    unit: str
    goal: float | None
    peak_goal: int | None = None


ROWS: dict[str, Step] = {
    "prepare_parquet": Step("bench.scale_data", "s", 120.0, 6 * _GB),
    "prepare_official": Step("bench.scale_data", "s", 600.0),
    "store_open": Step("bench.scale_data", "ms", 50.0),
    "pack_loader": Step("bench.scale_training", "sequences/s", 20_000.0),
    "questions_generate": Step("bench.scale_data", "questions/s", 50_000.0),
    "questions_render": Step("bench.scale_data", "questions/s", 20_000.0),
    "first_step": Step("bench.scale_training", "s", 5.0),
    "pretrain_rate": Step("bench.scale_training", "tokens/s", None, 8 * _GB),
}
"""In the order in which one needs what another leaves in the folder."""


def run_row(name: str, work: Path) -> dict[str, Any]:
    """Measure a row in this process."""
    result = getattr(import_module(ROWS[name].module), name)(work)
    return {
        **_blank(name),
        "value": round(result.value, 3),
        "peak_rss_bytes": _peak(),
        "value_by_cpu": round(result.by_cpu, 3),
        "wall_seconds": round(result.wall, 3),
        "cpu_seconds": round(result.cpu, 3),
        "cpu_seconds_before": round(result.before, 3),
        **result.more,
    }


def in_own_process(name: str, work: Path, limit: float | None = None) -> dict[str, Any]:
    """Measure a row in a new process, for `limit` seconds at most; what failed or took longer is a row with the
    reason."""
    command = [sys.executable, "-m", "bench.scale", "--row", name, "--work", str(work)]
    environment = {**os.environ, "BENCH_STARTED": repr(time.time())}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=limit)
    except subprocess.TimeoutExpired:
        return {**_blank(name), "skipped": f"not done after {limit:g} seconds"}
    if done.returncode:
        return {**_blank(name), "failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def _blank(name: str) -> dict[str, Any]:
    row = ROWS[name]
    return {
        "name": name, "value": None, "unit": row.unit, "peak_rss_bytes": None, "goal": row.goal,
        "peak_rss_goal_bytes": row.peak_goal,
    }  # fmt: skip


def _peak() -> int:
    """Bytes: not ru_maxrss, which a process inherits from a larger one that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 where a row failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--fraction", type=float, default=0.01, help="of the paper's size (default: 0.01)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the rows go")
    parser.add_argument("--work", type=Path, help="folder of the log and the store, kept (default: a temporary one)")
    parser.add_argument("--rows", default=",".join(ROWS), help="names with commas between (default: all)")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="most of a row (default: none)")
    parser.add_argument("--note", default="", help="a sentence for the file, on what else the machine did")
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.row:
        print(json.dumps(run_row(options.row, options.work)))
        return 0
    names = chosen_names(options.rows, ROWS, "--rows")
    check_positive(fraction=options.fraction, limit=options.limit)
    if options.json:
        check_writable(options.json)
    with tempfile.TemporaryDirectory() as temporary:
        rows = _measure(names, options, options.work or Path(temporary))
    return 1 if any("failed" in row for row in rows if row["name"] in names) else 0


def _measure(names: list[str], options: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """All rows; the file holds what is done after each, and says of the others that they are not, unless it has them
    from before."""
    from bench.machine import cpu_name  # loads torch, which no row is to find loaded

    about = {
        "fraction": options.fraction, "cpu": cpu_name(), "cores": os.cpu_count(),
        "threads": {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")},
        "note": options.note,
    }  # fmt: skip
    before = _rows_before(options.json, options.fraction)
    rows = [before.get(name, {**_blank(name), "skipped": "not asked for"}) for name in ROWS]
    _write_log(work / "log", options.fraction)
    for place, name in enumerate(ROWS):
        if name in names:
            row = in_own_process(name, work, options.limit)
            rows[place] = {**row, "commit": commit(), "load": os.getloadavg()}
            print(json.dumps(rows[place]), flush=True)
            if options.json:
                write_json(options.json, {**about, "rows": rows})
    return rows


def _rows_before(file: Path | None, fraction: float) -> dict[str, dict[str, Any]]:
    """The rows of the file by name, where it is of this size."""
    if file is None or not file.exists():
        return {}
    result = read_json(file)
    return {row["name"]: row for row in result["rows"]} if result["fraction"] == fraction else {}


def _write_log(folder: Path, fraction: float) -> None:
    from bench.scale_data import write_log

    if not folder.exists():
        aside = folder.with_name("log.partial")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        write_log(aside, fraction)
        aside.rename(folder)


if __name__ == "__main__":
    sys.exit(main())
