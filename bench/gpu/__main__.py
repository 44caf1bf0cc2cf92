"""`make gpu`: everything that a day with a GPU is for, in one command that ends in nine minutes."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.command import check_positive, chosen_names, command
from bench.envelope import check_writable
from bench.gpu import steps
from bench.gpu.measure import GROUPS
from bench.gpu.report import Report, machine
from bench.gpu.session import LIMITS, Session
from bench.gpu.table import lines
from bench.gpu.visit import CALLS, make_call

RESULTS = Path(__file__).parents[1] / "results"
NO_GPU = "no GPU: what needs none was done; run the same command on a machine with one for the figures"

EXAMPLES = """examples:
  python -m bench.gpu                                  # a short visit: check, tune, goals, into runs/gpu
  python -m bench.gpu tune --out /tmp/gpu              # one of its three calls
  python -m bench.gpu --rehearse                       # all three, with tiny shapes on the CPU
  python -m bench.gpu all                              # nine minutes, into bench/results/gpu-CARD.json
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
    parser.add_argument(
        "calls", nargs="*", metavar="CALL",
        help=f"of {', '.join(CALLS)} (default: these in turn); or all: every row, with other ways beside it",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), metavar="DIR", help="folder of results")
    parser.add_argument("--json", type=Path, metavar="OUT", help="result file (default: bench/results/gpu-CARD.json)")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for everything (default: 9)")
    parser.add_argument("--dry-run", action="store_true", help="only print the steps, limits and rows")
    parser.add_argument("--rehearse", action="store_true", help="measure tiny shapes on the CPU")
    parser.add_argument("--steps", default=",".join(STEPS), help="of %(default)s")
    parser.add_argument("--groups", default=",".join(GROUPS), help="rows to measure, of %(default)s")
    parser.add_argument("--no-baselines", action="store_true", help="measure ours alone")
    return parser


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


def visit(calls: Sequence[str], out: Path, *, is_rehearsed: bool) -> int:
    """The calls in order; exit code 1 where the package cannot be built. InputError for a call that does not exist."""
    import torch

    has_gpu = torch.cuda.is_available() and not is_rehearsed
    names = chosen_names(",".join(calls), CALLS, "CALL")
    if not has_gpu and not is_rehearsed:
        print(f"{NO_GPU}; --rehearse runs the calls with tiny shapes here.")
        return 0
    code, device = 0, "cuda" if has_gpu else "cpu"
    for name in names:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            about = machine(device)
            lines_ = make_call(name, out, about, device, is_small=is_rehearsed, scratch=Path(folder))
        print("\n".join(["", f"== {name} ==", *lines_]), flush=True)
        code |= int(any(line.startswith("step build: failed") for line in lines_))
    print(f"\nwritten to {out}" if has_gpu else f"\n{NO_GPU}")
    return code


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 whatever the goals come to, 1 where the package cannot be built, 2 for wrong arguments."""
    import torch

    parser = build_parser()
    options = parser.parse_args(arguments)
    of_all = ("json", "minutes", "dry_run", "steps", "groups", "no_baselines")
    if not options.calls and all(getattr(options, name) == parser.get_default(name) for name in of_all):
        options.calls = list(CALLS)
    if options.calls and options.calls != ["all"]:
        return visit(options.calls, options.out, is_rehearsed=options.rehearse)
    has_gpu = torch.cuda.is_available() and not options.rehearse
    device = "cuda" if has_gpu else "cpu"
    names = chosen_names(options.steps, STEPS, "--steps")
    asked = chosen_names(options.groups, GROUPS, "--groups")
    groups = [group for group in GROUPS if group in asked]
    check_positive(minutes=options.minutes)
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
    print()
    if has_gpu or options.rehearse:
        print("\n".join(lines(report.to_dict())))
    print(f"\nwritten to {path}" if has_gpu else f"\n{NO_GPU}")
    return int(any(step.name == "build" and step.result == "failed" for step in report.steps))


if __name__ == "__main__":
    sys.exit(main())
