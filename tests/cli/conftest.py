"""The command line in process, and what every refusal has in common."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from uqabench.cli import main

BASE = ("run", "--preset", "tiny", "--name", "t", "--quiet")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def call(tmp_path, capfd, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """Any command, called in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def go(*args):
        capfd.readouterr()
        code = main([str(arg) for arg in args])
        return code, *capfd.readouterr()

    return go


@pytest.fixture
def run(call, tmp_path, small_store, small_run) -> Callable[..., tuple[int, str, str]]:
    """`run(...)`: `uqabench run` on the small log, into runs/t of the empty folder."""
    sets = [word for setting in small_run for word in ("--set", setting)]
    store = ("--source", "store", "--path", str(small_store.path))

    def go(*args, methods="sasrec,oracle", source=store):
        return call(*BASE, "--runs", tmp_path / "runs", *sets, *source, "--methods", methods, *args)

    return go


@pytest.fixture
def expect() -> Callable[..., str]:
    """`expect(outcome, code, pattern)`: that exit code, one line on stderr that matches, no traceback."""

    def check(outcome, code, pattern):
        got, _, stderr = outcome
        assert got == code, stderr
        lines = stderr.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("uqabench: ") and "Traceback" not in stderr, stderr
        assert re.search(pattern, lines[0]), lines[0]
        return lines[0]

    return check


@pytest.fixture
def debris() -> Callable[[Path], list[Path]]:
    """`debris(folder)`: half-written files and folders anywhere below."""
    return lambda folder: [path for path in folder.rglob("*") if re.search(r"\.partial-|\.old-|\.work$", path.name)]


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, small_store, small_run) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    sets = [word for setting in small_run for word in ("--set", setting)]
    source = ["--source", "store", "--path", str(small_store.path), "--methods", "sasrec,majority"]
    assert main([*BASE, "--runs", str(folder), *sets, *source]) == 0
    return folder / "t"


@pytest.fixture
def done(finished_run, tmp_path) -> Path:
    """The folder of a finished run of sasrec and majority, to be spoiled: runs/t."""
    return Path(shutil.copytree(finished_run, tmp_path / "runs" / "t"))
