"""Random calls, many of them wrong: never a crash, never an error that does not say which argument is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(what: str, count: int, first: int, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    command = [sys.executable, "-m", "tests.kernels.fuzz", what, str(count), str(first), str(journal)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    last = journal.read_text().strip() if journal.exists() else "the start"
    assert done.returncode in (0, 1), f"the process ended with {done.returncode} at {last}:\n{done.stderr}"
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("what", "count"), [("door", 150), ("module", 100)])
def test_random_calls(what, count, tmp_path):
    run(what, count, 0, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["door", "module"])
def test_many_random_calls(what, tmp_path):
    run(what, 10_000, 1_000_000, tmp_path)
