"""Run folders: told from other folders by a marker, so that nothing is replaced that this program did not write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uqabench.errors import InputError
from uqabench.files import write_json
from uqabench.locks import folder_lock
from uqabench.stages.distributed import joined

MARKER = "uqabench-run.json"


def run_folder(runs: Path, name: str) -> Path:
    """The folder of the run called `name`; InputError for names that are no plain folder name."""
    plain = Path(name).name == name and name not in ("", ".", "..") and "\0" not in name
    if not plain or name.startswith("."):
        raise InputError(
            f"The run's name '{name}' is no folder name: use letters, digits, '-' and '_'; --runs takes a path."
        )
    return runs / name


@contextmanager
def claimed(run: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the run folder `run` for this process, and those that torchrun started beside it, making it if there is
    none.

    InputError for a folder that holds anything but a run, and for one that another process holds (unless `wait`).
    """
    run = run.resolve()  # a link to a folder on another disk stays a link
    with joined() as group:
        if group.is_first:
            with _locked(run, wait):
                yield
        else:
            yield


@contextmanager
def _locked(run: Path, wait: bool) -> Iterator[None]:
    check_is_run(run)
    with folder_lock(run, wait=wait):
        check_is_run(run)
        if not (run / MARKER).exists():
            write_json(run / MARKER, {"format": 1})
        yield


def check_is_run(run: Path) -> None:
    """InputError unless `run` is a run folder, empty, or not there."""
    if run.exists() and not run.is_dir():
        raise InputError(f"{run} is a file: name a folder for the run.")
    if run.is_dir() and not (run / MARKER).exists() and any(run.iterdir()):
        raise InputError(
            f"{run} is a folder that no run of this version has made: choose another --name or --runs, or empty it."
        )
