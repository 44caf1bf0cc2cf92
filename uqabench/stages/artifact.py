"""Stage folders: built aside, renamed, reused when config and inputs are the same, resumable in between."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from uqabench.errors import InputError
from uqabench.files import atomic_folder, hash_json, read_json, sha256_file, sweep, write_json

FORMAT = 1
# Logs and clock readings differ between equal runs, so they are left out of an artefact's content hash.
UNHASHED = ("log.jsonl", "seconds.json", "tensorboard", "manifest.json")


@dataclass(frozen=True)
class Artifact:
    """A finished stage folder and its manifest."""

    path: Path
    manifest: dict[str, Any]

    @property
    def content(self) -> str:
        """Hash of the files that later stages read."""
        return self.manifest["content"]

    @property
    def seconds(self) -> float:
        """Wall-clock seconds that building it took, summed over resumed runs."""
        return float(read_json(self.path / "seconds.json")["seconds"])

    def json(self, name: str) -> Any:
        return read_json(self.path / name)


def versions() -> dict[str, str]:
    """Versions that can change a result: Python and the numerical packages."""
    found = {"python": platform.python_version()}
    for package in ("uqabench", "torch", "numpy", "transformers", "tokenizers", "pyarrow", "numba"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def stage_key(stage: str, config: dict[str, Any], inputs: dict[str, str]) -> str:
    """Identity of a stage's result: its name, format, config and the content of its inputs."""
    return hash_json({"stage": stage, "format": FORMAT, "config": config, "inputs": inputs})


def open_artifact(path: Path, stage: str | None = None) -> Artifact:
    """Open a finished stage folder, checking that its files are the ones that were written."""
    manifest = read_json(path / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or "files" not in manifest:
        raise InputError(f"{path} was written by another version of uqabench: delete it and run its stage again.")
    if stage is not None and manifest["stage"] != stage:
        raise InputError(f"{path} holds the stage '{manifest['stage']}', not '{stage}': give the folder of that stage.")
    for name, digest in manifest["files"].items():
        file = path / name
        if not file.exists() or sha256_file(file) != digest:
            raise InputError(
                f"{file} is missing or changed since it was written: delete {path} and run its stage again."
            )
    return Artifact(path, manifest)


def build(
    path: Path,
    stage: str,
    config: dict[str, Any],
    inputs: dict[str, str],
    make: Callable[[Path, Path], float],
) -> tuple[Artifact, bool]:
    """Reuse `path` when it holds this very result, else build it: `make(out, work)` → seconds spent.

    `out` becomes `path` when `make` returns. `work` survives a killed run of the same key: it holds checkpoints.
    Returns the artefact and whether it was reused.
    """
    path = Path(path)
    key = stage_key(stage, config, inputs)
    sweep(path)
    if (path / "manifest.json").exists():
        manifest = read_json(path / "manifest.json")
        if manifest.get("key") == key:
            return open_artifact(path, stage), True
    work = _work_folder(path, key)
    with atomic_folder(path) as out:
        seconds = make(out, work)
        write_json(out / "seconds.json", {"seconds": round(seconds, 3)})
        files = _hash_files(out)
        hashed = {name: digest for name, digest in files.items() if name.split("/")[0] not in UNHASHED}
        manifest = {
            "stage": stage,
            "format": FORMAT,
            "key": key,
            "content": hash_json(hashed),
            "config": config,
            "inputs": inputs,
            "versions": versions(),
            "files": files,
        }
        write_json(out / "manifest.json", manifest)
    shutil.rmtree(work, ignore_errors=True)
    return Artifact(path, manifest), False


def _work_folder(path: Path, key: str) -> Path:
    """The folder for checkpoints of this key; another key's is removed."""
    work = path.with_name(f"{path.name}.work")
    if work.exists() and (not (work / "key.json").exists() or read_json(work / "key.json") != key):
        shutil.rmtree(work)
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write {work} ({error.strerror}): choose a folder that you may write to.") from error
    write_json(work / "key.json", key)
    return work


def _hash_files(folder: Path) -> dict[str, str]:
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    return {name: sha256_file(folder / name) for name in names if not name.startswith("tensorboard")}
