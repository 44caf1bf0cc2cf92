"""`make gpu`: everything that a day with a GPU is for, in one command that ends in nine minutes."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.envelope import check_writable
from bench.gpu import steps
from bench.gpu.measure import GROUPS
from bench.gpu.report import Report, machine
from bench.gpu.steps import Step
from bench.gpu.table import lines
from uqabench.errors import InputError, UQABenchError

RESULTS = Path(__file__).parents[1] / "results"
LIMITS = {"build": 80.0, "aot": 45.0, "tests": 110.0, "sanitize": 40.0}
"""Seconds of a step at most, of nine minutes; fewer in proportion where less is given."""
NEEDED = {"ceilings": 1, "attention": 4, "rows": 2, "recurrent": 4, "catalogue": 2, "encoders": 4, "language": 2}
"""Shares of the time for measuring ours; what they leave goes to the baselines."""
OURS = 0.75
AGAIN = 15.0
"""Seconds under which a process that crashed is not started again for the rows behind the crash."""
NO_GPU = "no GPU: what needs none was done; run the same command on a machine with one for the figures"

EXAMPLES = """examples:
  python -m bench.gpu                                  # all of it, into bench/results/gpu-CARD.json
  python -m bench.gpu --dry-run                        # what would be done, with the time limits
  python -m bench.gpu --steps build,measure --groups ceilings,attention --minutes 4
  python -m bench.gpu --rehearse --steps measure       # tiny shapes on the CPU: finds errors, measures nothing
"""
STEPS = ("build", "aot", "tests", "sanitize", "measure")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description="Build, compile, test and measure the GPU kernels on this machine's GPU, without a network.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="result file (default: bench/results/gpu-CARD.json)")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for everything (default: 9)")
    parser.add_argument("--dry-run", action="store_true", help="only print the steps, limits and rows")
    parser.add_argument("--rehearse", action="store_true", help="measure tiny shapes on the CPU")
    parser.add_argument("--steps", default=",".join(STEPS), help="of %(default)s")
    parser.add_argument("--groups", default=",".join(GROUPS), help="rows to measure, of %(default)s")
    parser.add_argument("--no-baselines", action="store_true", help="measure ours alone")
    return parser


def chosen(text: str, known: Sequence[str], option: str) -> list[str]:
    """Names in `text`, in the order of `known`; InputError for one that is not known."""
    names = {name.strip() for name in text.split(",") if name.strip()}
    for name in sorted(names - set(known)):
        raise InputError(f"{option} has '{name}': choose of {', '.join(known)}.")
    return [name for name in known if name in names]


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
            self.report.add_step(self._measure_group(group, seconds, baselines))

    def _measure_group(self, group: str, seconds: float, baselines: bool) -> Step:
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


def plan(names: Sequence[str], groups: Sequence[str], minutes: float) -> None:
    """Print what would be done."""
    for name in names:
        if name != "measure":
            print(f"{name}: at most {LIMITS[name] * minutes / 9:.0f} s")
    if "measure" not in names:
        return
    try:
        from bench.gpu.measure import group_rows

        found = {group: group_rows(group) for group in groups if group != "ceilings"}
    except ImportError as error:
        print(f"measure: the rows are known after the build ({error})")
        return
    for group, rows in found.items():
        print(f"measure {group}: {len(rows)} rows")
        for row in rows:
            print(f"  {row.name}")


def perform(session: Session, names: Sequence[str], groups: Sequence[str], *, has_gpu: bool) -> None:
    """The chosen steps in order; without a GPU those that need none, and everything is compiled instead of a subset."""
    report, scratch, environment = session.report, session.scratch, session.environment
    if "build" in names:
        report.add_step(steps.build(scratch, session.limit("build"), environment))
    if "aot" in names:
        seconds = session.limit("aot") if has_gpu else session.left
        report.add_step(steps.compile_ahead(scratch, seconds, environment, is_subset=has_gpu))
    if has_gpu and "tests" in names:
        report.add_step(steps.tests(scratch, session.limit("tests"), environment))
    if has_gpu and "sanitize" in names:
        for step in steps.sanitize(scratch, session.limit("sanitize"), environment):
            report.add_step(step)
    if "measure" in names and (has_gpu or session.is_small):
        session.measure(groups, baselines=False)
        if session.with_baselines:
            session.measure([g for g in groups if g not in ("ceilings", "language")], baselines=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 whatever the goals come to, 1 where the package cannot be built, 2 for wrong arguments."""
    import torch

    options = build_parser().parse_args(arguments)
    has_gpu = torch.cuda.is_available() and not options.rehearse
    device = "cuda" if has_gpu else "cpu"
    try:
        names = chosen(options.steps, STEPS, "--steps")
        groups = chosen(options.groups, GROUPS, "--groups")
        if options.minutes <= 0:
            raise InputError(f"--minutes is {options.minutes}: it must be above 0.")
        if options.dry_run:
            plan(names, groups, options.minutes)
            return 0
        about = machine(device)
        path = options.json or RESULTS / f"gpu-{re.sub(r'[^a-z0-9]+', '-', about['gpu'].lower()).strip('-')}.json"
        if options.json is None and not has_gpu:
            path = Path(tempfile.gettempdir()) / "uqabench-no-gpu.json"  # nothing measured: nothing to keep
        check_writable(path)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            report = Report(path, about)
            session = Session(
                report,
                options.minutes,
                device,
                is_small=options.rehearse,
                with_baselines=not options.no_baselines,
                scratch=Path(folder),
            )
            perform(session, names, groups, has_gpu=has_gpu)
        report.save()
    except UQABenchError as error:
        print(error, file=sys.stderr)
        return 2
    print()
    if has_gpu or options.rehearse:
        print("\n".join(lines(report.to_dict())))
    print(f"\nwritten to {path}" if has_gpu else f"\n{NO_GPU}")
    return int(any(step.name == "build" and step.result == "failed" for step in report.steps))


if __name__ == "__main__":
    sys.exit(main())
