"""A short visit to a GPU in three calls: is everything right (`check`), what is fastest (`tune`), what is reached
(`goals`). Each ends by itself within its seconds and leaves its results in one folder.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.gpu import steps
from bench.gpu.measure import JUDGED
from bench.gpu.report import Report
from bench.gpu.session import Session
from bench.gpu.table import cells, judged_line
from uqabench.files import write_bytes, write_json

CALLS = {"check": 150.0, "tune": 350.0, "goals": 250.0}
"""Seconds of each call at most, in the order in which they are made."""


def make_call(name: str, out: Path, about: dict[str, Any], device: str, *, is_small: bool, scratch: Path) -> list[str]:
    """Make one call into the folder `out`; its lines, verdicts first. NAME.json and NAME.txt hold the results."""
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    report = Report(out / f"{name}.json", about)
    session = Session(report, CALLS[name] / 60, device, is_small=is_small, with_baselines=False, scratch=scratch)
    report.add_step(steps.build(scratch, min(80.0, session.left), session.environment))
    work = {"check": _check, "tune": _tune, "goals": _goals}[name]
    lines = [*work(session, out), ""]
    lines += [f"step {s.name}: {s.result} ({s.seconds:.0f} s) {s.text}".rstrip() for s in report.steps]
    lines.append(f"{name}: {time.monotonic() - started:.0f} of {CALLS[name]:.0f} s")
    write_bytes(out / f"{name}.txt", "\n".join(lines).encode() + b"\n")
    return lines


def _run_module(session: Session, out: Path, module: str, arguments: Sequence[str]) -> steps.Ended:
    """A module of this folder in a process of its own, on the session's device, its output in a log in `out`."""
    command = [sys.executable, "-m", f"bench.gpu.{module}", "--device", session.device, *arguments]
    command += ["--small"] * session.is_small
    return steps.run(command, session.left, session.environment, out / f"{module}.log")


def _check(session: Session, out: Path) -> Iterator[str]:
    """The hot path's kernels against fp32, the waits of a step, and memcheck of the scan."""
    found = session.scratch / "checks.jsonl"
    found.write_text("")
    session.report.add_step(session.measure_group("ceilings", 40.0, baselines=False))
    ended = _run_module(session, out, "hot_checks", ["--out", str(found)])
    checks = [json.loads(line) for line in found.read_text().splitlines()]
    write_json(out / "checks.json", checks)
    session.report.add_step(steps.judged("hot-path checks", ended))
    for check in checks:
        error = "" if check["error"] is None else f"{check['error']:.1e}"
        yield f"{'PASS' if check['passed'] else 'FAIL'}  {check['check']}: {error}{check.get('problem', '')}"
    for step in steps.sanitize(session.scratch, session.left, session.environment, tools=("memcheck",)):
        session.report.add_step(step)


def _tune(session: Session, out: Path) -> Iterator[str]:
    """Every configuration at production sizes; the winners' tables in `out`/tuned."""
    seconds = f"{max(10.0, session.left - 20):.0f}"
    ended = _run_module(session, out, "tune", ["--out", str(out / "tuned"), "--seconds", seconds])
    session.report.add_step(steps.judged("tune", ended))
    yield from ended.output.splitlines()


def _goals(session: Session, out: Path) -> Iterator[str]:
    """The rows that goals are judged by, the step of the pipeline and of the 3 B model."""
    report = session.report
    report.add_step(session.measure_group("ceilings", 40.0, baselines=False))
    report.add_step(session.measure_group(JUDGED, session.left - 5, baselines=False))
    report.save()
    result = report.to_dict()
    for verdict in result["goals"]:
        yield judged_line(verdict)
    yield ""
    for row in result["rows"]:
        yield "  ".join(cell for cell in cells(row, result["ceilings"]) if cell)
        for kernel, configuration in row.get("configurations", {}).items():
            yield f"    {kernel}: {configuration}"
        for kernel in result["kernels"]:
            if kernel["row"] == row["name"]:
                yield f"    {kernel['kernel']}: {kernel['seconds'] * 1e6:.1f} us x {kernel['launches']}"
