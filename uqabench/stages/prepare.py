"""The data as a stage: a log prepared into an interaction store, or a store that exists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from uqabench.artifact import Artifact
from uqabench.data import InteractionStore, open_source, prepare
from uqabench.errors import InputError
from uqabench.settings import DataConfig


@dataclass(frozen=True)
class StoreStage:
    """What `artifact.Stage` is, for stores."""

    make: Callable[[Path], InteractionStore]
    is_given: bool = False

    def finished(self, path: Path) -> Artifact | None:
        try:
            return _artifact(self.make(path) if self.is_given else InteractionStore.open(path))
        except InputError:
            return None

    def build(self, path: Path) -> tuple[Artifact, bool]:
        if self.is_given:
            return _artifact(self.make(path)), True
        there = path / "manifest.json"
        before = there.stat().st_mtime_ns if there.exists() else None
        artifact = _artifact(self.make(path))
        return artifact, before == artifact.path.joinpath("manifest.json").stat().st_mtime_ns


def prepare_stage(config: DataConfig, progress: bool) -> StoreStage:
    """Prepare the source that `config` names."""
    source = open_source(config.source, config.path, **config.options)
    return StoreStage(lambda path: prepare(source, path, config.prepare, progress=progress))


def given_store_stage(folder: Path) -> StoreStage:
    """A store that was prepared before, opened where it is."""
    return StoreStage(lambda path: InteractionStore.open(folder), is_given=True)


def _artifact(store: InteractionStore) -> Artifact:
    return Artifact(store.path, {"content": store.manifest["content_hash"]})
