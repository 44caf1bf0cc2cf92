"""The emulation finds what a GPU would leave undefined."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("return", "a lane has returned while others wait"),
        ("barriers", "lanes wait at different barriers"),
        ("shuffle", "a lane has returned while others wait"),
        ("none", None),
    ],
)
def test_misuse_ends_the_program(build: Callable[[Path], Path], name: str, message: str | None):
    program = build(Path(__file__).with_name("misuse.cpp"))
    done = subprocess.run([program, name], capture_output=True, text=True)
    assert done.returncode == (3 if message else 0), done.stderr
    assert (message or "") in done.stderr
