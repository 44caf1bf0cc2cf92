"""Training steps of this uqabench against another installation's: `python -m bench.against PYTHON`.

One process of each takes its steps in turns, so that both see the same machine; this one only tells them when.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from scipy.stats import quantile_test

from bench.command import check_positive, chosen_names, command
from bench.envelope import SCHEMA, check_writable, commit
from bench.machine import cpu_name
from bench.rows.encoders import LENGTHS, WORK
from bench.units import in_units
from uqabench.errors import InputError
from uqabench.files import write_json
from uqabench.settings.encoders import ENCODER_PRESETS, PRESET_NAMES

EXAMPLES = """examples:
  python -m bench.against ../older/.venv/bin/python                          # every row
  python -m bench.against ../older/.venv/bin/python --rows hstu,trm++ --json runs/against.json

The other installation must know the encoders' names and `uqabench.encoders.build_encoder`. A ratio below 1 means that
this one is faster. Set OMP_NUM_THREADS to choose the threads of both.
"""
WORKER = Path(__file__).parent / "against_worker.py"
CATALOGUE = 50_000
WAITING = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
"""A process whose turn it is not leaves the cores to the other one: its threads sleep at once where they wait."""


def _encoder(name: str, lengths: Sequence[int] = LENGTHS, **more: Any) -> dict[str, Any]:
    overrides = {"dropout": 0.0, **more.pop("overrides", {})}
    return {"encoder": name, "lengths": list(lengths), "overrides": overrides, "with_times": False, "items": 0, **more}


ROWS: dict[str, dict[str, Any]] = {
    **{name: _encoder(name) for name in WORK},
    "hstu with times": _encoder("hstu", with_times=True),
    "hstu of 50 items": _encoder("hstu", [50] * 44),
    "hstu of 2048 items": _encoder("hstu", [2048], overrides={"max_len": 2048}),
    **{
        f"pretrain {name}": {**_encoder(name), "overrides": {}, "with_times": True, "items": CATALOGUE} for name in WORK
    },
}
"""What a worker is told by row: encoders' forward and backward passes without dropout, so that both sides compute one
function; and whole steps of pre-training as it is, over a catalogue of so many items."""


def problem(row: str, preset: str) -> dict[str, Any]:
    """What the worker of a row is told: no sequence is longer than the preset's encoders take."""
    chosen = {**ROWS[row], "preset": preset}
    longest = chosen["overrides"].get("max_len") or ENCODER_PRESETS[chosen["encoder"]][preset].max_len
    return {**chosen, "lengths": [min(length, longest) for length in chosen["lengths"]]}


class Worker:
    """A process of one installation's interpreter that takes a row's training steps when it is told to.

    folder: an empty one, in which it runs. It says first which uqabench it is, then what its first step took.
    """

    def __init__(self, python: str, row: dict[str, Any], folder: Path) -> None:
        self.python, self.folder, self.errors = python, folder, (folder / "errors.txt").open("w+")
        python = os.path.abspath(shutil.which(python) or python)  # a link to another Python in a venv stays one
        # Neither this checkout nor the worker's own folder is on the path, as they would be with a script's name.
        command = [python, "-c", f"import runpy; runpy.run_path({str(WORKER)!r}, run_name='__main__')", json.dumps(row)]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors, "text": True}
        try:
            self.process = subprocess.Popen(command, cwd=folder, env={**WAITING, **environment}, **pipes)
        except OSError as error:
            raise InputError(f"{python} cannot be run ({error.strerror}): name a Python interpreter.") from error

    def answer(self) -> dict[str, Any]:
        """What it says next; InputError where it cannot go on."""
        line = self.process.stdout.readline()
        said = json.loads(line) if line else {"error": self._last_words()}
        if "error" in said:
            raise InputError(f"{self.python} cannot take this row's steps: {said['error'].rstrip('.')}.")
        return said

    def ask(self, what: str) -> dict[str, Any]:
        """Its answer to `step`, or to a path for what its last step left."""
        try:
            self.process.stdin.write(f"{what}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its answer says why it has ended
        return self.answer()

    def left(self) -> dict[str, torch.Tensor]:
        """What its last step left, by name."""
        file = self.folder / "left.pt"
        self.ask(str(file))
        return torch.load(file, weights_only=True)

    def end(self) -> None:
        """Ends the process and waits for it."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()

    def _last_words(self) -> str:
        self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines()
        return lines[-1] if lines else f"it ended with exit code {self.process.returncode}"


def measure(row: str, python: str, *, preset: str, starts: int, repeats: int) -> dict[str, Any]:
    """A row of the result file: `repeats` pairs of steps of this installation and of `python`'s by each of `starts`
    processes of either, as where memory lies differs between processes; who begins a pair changes from start to start.
    """
    told, pairs, errors = problem(row, preset), [], []
    for start in range(starts):
        with together((sys.executable, python), told) as workers:
            sides = [worker.answer() for worker in workers]
            for worker in workers:
                worker.answer()  # the first step, in which both get warm at once
            errors.append(largest_errors(*(worker.left() for worker in workers)))
            for _ in range(repeats + 1):
                steps = {i: workers[i].ask("step") for i in ((0, 1), (1, 0))[start % 2]}
                pairs.append([steps[0], steps[1]])
            del pairs[-repeats - 1]
    ours, theirs = ([pair[side]["seconds"] for pair in pairs] for side in range(2))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "name": row,
        "preset": preset,
        "seconds": median(ours),
        "against_seconds": median(theirs),
        "ratio": median(ratios),
        "ratio_interval": interval(ratios),
        "pairs": [list(pair) for pair in zip(ours, theirs, strict=True)],
        "starts": starts,
        "errors": {kind: _largest([each[kind] for each in errors]) for kind in errors[0]},
        "idle_cpu_seconds": max(step["idle_cpu_seconds"] for pair in pairs for step in pair),
        "commits": [origin(Path(side["file"]), side["version"]) for side in sides],
        **{name: [side[name] for side in sides] for name in ("isa", "threads", "torch")},
    }


@contextmanager
def together(interpreters: Sequence[str], row: dict[str, Any]) -> Iterator[list[Worker]]:
    """A worker of each interpreter; they end with the block."""
    workers: list[Worker] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for i, python in enumerate(interpreters):
                (own := Path(folder, str(i))).mkdir()
                workers.append(Worker(python, row, own))
            yield workers
        finally:
            for worker in workers:
                worker.end()


def largest_errors(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> dict[str, float | None]:
    """By kind (weights, gradients, outputs) the largest difference of two tensors of one name, relative to the largest
    value of theirs; None where names or shapes differ or a value is no number."""
    found: dict[str, list[float | None]] = {}
    for name in sorted({*ours, *theirs}):
        a, b = ours.get(name), theirs.get(name)
        error = None
        if a is not None and b is not None and a.shape == b.shape:
            error = float((a - b).abs().max()) / max(float(b.abs().max()), torch.finfo(b.dtype).tiny)
        found.setdefault(name.partition(" ")[0], []).append(error)
    return {kind: _largest(errors) for kind, errors in found.items()}


def _largest(errors: Sequence[float | None]) -> float | None:
    return None if any(error is None or not math.isfinite(error) for error in errors) else max(errors)


def interval(ratios: Sequence[float]) -> list[float]:
    """Where the median of what they were drawn from lies with a probability of 95 % by their order alone; the least and
    the largest where they are too few for that."""
    found = quantile_test(ratios, q=1.0, p=0.5).confidence_interval(0.95)
    return [float(bound) for bound in found] if math.isfinite(found.low) else [min(ratios), max(ratios)]


def origin(file: Path, version: str) -> str:
    """The commit of the checkout whose file that is, or the version of a release."""
    command = ["git", "ls-files", "--error-unmatch", str(file)]
    tracked = subprocess.run(command, cwd=file.parent, capture_output=True).returncode == 0
    return commit(file.parent) if tracked else f"version {version}"


HEADINGS = ("row", "pairs", "other", "this", "ratio", "95 %", "largest relative errors")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of a result file in Markdown."""
    return "\n".join([f"| {' | '.join(HEADINGS)} |", "|---" * len(HEADINGS) + "|", *(line(row) for row in rows)])


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    low, high = row["ratio_interval"]
    errors = (
        f"{kind} {'not comparable' if error is None else f'{error:.1g}'}" for kind, error in row["errors"].items()
    )
    times = in_units(row["against_seconds"]), in_units(row["seconds"])
    name = row["name"] + ("" if row["preset"] == "published" else f", preset {row['preset']}")
    cells = (name, str(len(row["pairs"])), *times, f"{row['ratio']:.3f}", f"{low:.3f} to {high:.3f}", ", ".join(errors))
    return f"| {' | '.join(cells)} |"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.against",
        description="Time training steps of this uqabench and of another installation, in turns.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("python", metavar="PYTHON", help="the interpreter of the other installation")
    parser.add_argument("--json", type=Path, metavar="OUT", help="result file; written anew with each row")
    parser.add_argument("--rows", default=",".join(ROWS), help="names with commas between (default: %(default)s)")
    parser.add_argument("--preset", choices=PRESET_NAMES, default="published", help="size of the encoders (published)")
    parser.add_argument("--starts", type=int, default=3, metavar="N", help="processes of each, one by one (default: 3)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="pairs of steps of a start (default: 5)")
    return parser


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 for arguments that cannot be met, or an installation that cannot take the steps."""
    options = build_parser().parse_args(arguments)
    names = chosen_names(options.rows, ROWS, "--rows")
    check_positive(starts=options.starts, repeats=options.repeats)
    if options.json:
        check_writable(options.json)
    print(table([]), flush=True)
    head = {"schema": SCHEMA, "machine": {"cpu": cpu_name()}, "commit": commit()}
    sizes = {"preset": options.preset, "starts": options.starts, "repeats": options.repeats}
    rows = []
    for name in names:
        rows.append(measure(name, options.python, **sizes))
        print(line(rows[-1]), flush=True)
        if options.json:
            write_json(options.json, {**head, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
