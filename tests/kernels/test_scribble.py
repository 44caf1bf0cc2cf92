"""Integers that another thread overwrites during a native call never take the process down."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_integers_may_change_during_a_call():
    command = [sys.executable, "-m", "tests.kernels.scribble", "0.15"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    last = done.stdout.split()[-1:] or ["the start"]
    assert done.returncode == 0, f"the process ended with {done.returncode} at {last[0]}:\n{done.stderr}"
