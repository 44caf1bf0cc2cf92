"""The data as a stage: a log prepared into an interaction store, or a store that exists."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from uqabench.artifact import Artifact, Stage
from uqabench.data import open_source
from uqabench.data.prepare import prepare_key, write_store
from uqabench.data.store import STAGE, open_prepared
from uqabench.settings import DataConfig


@dataclass(frozen=True)
class GivenStore:
    """A store that was prepared before: a stage (`artifact.Stage`) that is always finished, where the store lies."""

    folder: Path

    def finished(self, path: Path) -> Artifact:
        """The store's artefact; InputError names what is wrong with it."""
        return open_prepared(self.folder)

    def build(self, path: Path) -> tuple[Artifact, bool]:
        """The same, as reused."""
        return self.finished(path), True


def prepare_stage(config: DataConfig, *, progress: bool = True) -> Stage:
    """Prepare the source that `config` names; its files are read here, for the stage's key."""
    source = open_source(config.source, config.path, **config.options)

    def make(folder: Path, work: Path) -> float:
        started = time.monotonic()
        write_store(source, folder, config.prepare, progress)
        return time.monotonic() - started

    return Stage(STAGE, *prepare_key(source, config.prepare), make, digests=False)
