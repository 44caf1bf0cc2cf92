"""A finished run on the small log, in process."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from uqabench.experiments.run import run
from uqabench.settings import RunConfig, run_config

torch.set_num_threads(1)
logging.getLogger("uqabench").setLevel(logging.INFO)

METHODS = (
    "sasrec",
    "trm++@q-former",
    "text8",
    "text8@zero-shot",
    "no-history",
    "shuffled",
    "uniform",
    "majority",
    "oracle",
)


class Said(logging.Handler):
    """Keeps the messages of a run."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture(scope="session")
def small_config(small_store, small_run):
    """Settings of a run on the prepared small log; further overrides are laid over them."""

    def make(*overrides: str, methods: tuple[str, ...] = METHODS) -> RunConfig:
        data = ("data.source=store", f"data.path={small_store.path}", f"methods=[{', '.join(methods)}]")
        return run_config("tiny", overrides=(*small_run, *data, *overrides))

    return make


@pytest.fixture(scope="session")
def execute(small_config):
    """Run `small_config(...)` into a folder; returns what it said."""

    def go(folder: Path, *overrides: str, methods: tuple[str, ...] = METHODS, until: str = "evaluate") -> list[str]:
        said = Said()
        logging.getLogger("uqabench").addHandler(said)
        try:
            run(folder, small_config(*overrides, methods=methods), progress=False, until=until)
        finally:
            logging.getLogger("uqabench").removeHandler(said)
        return said.lines

    return go


@pytest.fixture(scope="session")
def finished(execute, tmp_path_factory) -> Path:
    """The folder of the finished run; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    execute(folder)
    return folder
