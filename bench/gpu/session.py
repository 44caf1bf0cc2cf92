"""One run of the command: its deadline, its environment for other processes, and the processes that measure."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.gpu import steps
from bench.gpu.report import Report
from bench.gpu.steps import Step

LIMITS = {"build": 80.0, "aot": 45.0, "tests": 110.0, "sanitize": 40.0}
"""Seconds of a step at most, of nine minutes; fewer in proportion where less is given."""
NEEDED = {
    "ceilings": 1,
    "attention": 4,
    "rows": 2,
    "recurrent": 4,
    "catalogue": 2,
    "encoders": 4,
    "language": 2,
    "pipeline": 2,
}
"""Shares of the time for measuring ours; what they leave goes to the baselines."""
OURS = 0.75
AGAIN = 15.0
"""Seconds under which a process that crashed is not started again for the rows behind the crash."""


class Session:
    """One run of the command: its deadline, its environment for other processes, and what is known so far."""

    def __init__(
        self, report: Report, minutes: float, device: str, *, is_small: bool, with_baselines: bool, scratch: Path
    ) -> None:
        self.report, self.device, self.is_small, self.scratch = report, device, is_small, scratch
        self.with_baselines = with_baselines
        self.minutes = minutes
        self.deadline = time.monotonic() + 60 * minutes - 8  # the table and the file come after
        dropped = ("TRITON_INTERPRET", "UQABENCH_BACKEND")
        self.environment = {k: v for k, v in os.environ.items() if k not in dropped} | {"HF_HUB_OFFLINE": "1"}

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    def limit(self, step: str) -> float:
        return min(self.left, LIMITS[step] * self.minutes / 9)

    def measure(self, groups: Sequence[str], *, baselines: bool) -> None:
        """Each group's rows in a process; a share of the time each, and what one leaves goes to the next."""
        available = self.left * (1.0 if baselines or not self.with_baselines else OURS)
        begun = time.monotonic()
        for i, group in enumerate(groups):
            needed = sum(NEEDED[other] for other in groups[i:])
            seconds = (available - (time.monotonic() - begun)) * NEEDED[group] / needed
            self.report.add_step(self.measure_group(group, seconds, baselines))

    def measure_group(self, group: str, seconds: float, baselines: bool) -> Step:
        name = f"{'baselines of ' if baselines else ''}{group}"
        started, done, told = time.monotonic(), set(), ""
        while True:
            left = seconds - (time.monotonic() - started)
            if left < min(AGAIN, seconds / 2):
                return Step(name, "time over", time.monotonic() - started, f"{len(done)} rows{told}")
            out, skip = self.scratch / "rows.jsonl", self.scratch / "skip.txt"
            out.write_text("")
            skip.write_text("\n".join(sorted(done)))
            command = [sys.executable, "-m", "bench.gpu.measure", "--group", group, "--out", str(out)]
            command += ["--device", self.device, "--skip", str(skip), "--share", "0.001" if self.is_small else "0.2"]
            command += ["--small"] * self.is_small + ["--baselines"] * baselines
            ended = steps.run(command, left, self.environment, self.scratch / f"{group}.log")
            finished, begun = self.report.add_lines(out.read_text().splitlines())
            done |= finished
            if not ended.is_over and not ended.code:
                return Step(name, "ok", time.monotonic() - started, f"{len(done)} rows{told}")
            reason = "time over" if ended.is_over else f"crashed: {steps.last_line(ended.output)}"
            if begun is None and not finished:
                return Step(name, "failed", time.monotonic() - started, reason)
            if begun is not None:
                self.report.fail(begun, reason)
                done.add(begun)
                told += f"; {begun}: {reason}"
