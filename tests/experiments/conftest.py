"""A finished run on the small log, in process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from uqabench.experiments.run import Run
from uqabench.settings import RunConfig, run_config

torch.set_num_threads(1)

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

    def go(folder: Path, *overrides: str, methods: tuple[str, ...] = METHODS, until: str = "run") -> list[str]:
        said: list[str] = []
        Run(folder, small_config(*overrides, methods=methods), progress=False, say=said.append).execute(until)
        return said

    return go


@pytest.fixture(scope="session")
def finished(execute, tmp_path_factory) -> Path:
    """The folder of the finished run; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    execute(folder)
    return folder
