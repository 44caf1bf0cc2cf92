"""Stage folders: built aside, renamed, reused when config and inputs are the same, resumable in between."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from uqabench.errors import InputError
from uqabench.files import atomic_folder, hash_json, read_json, sha256_file, sweep, work_folder, write_json

FORMAT = 1
LARGE_FILE = 256 * 2**20  # above it a file is told by its size: reading 6 GB of weights takes longer than a stage
SMALL_FOLDER = 8 * 2**20  # bytes whose digests take no longer than the rest of opening
KEY_FILE = "key.json"  # in a working folder: whose checkpoints it holds
# Logs, clock readings and salted user ids differ between equal runs: an artefact's content hash leaves them out.
UNHASHED = ("log.jsonl", "seconds.json", "tensorboard", "manifest.json", "users.arrow", "truth.arrow")


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
        """Wall-clock seconds that building it took, summed over resumed runs; work shared with others counts whole."""
        return float(read_json(self.path / "seconds.json")["seconds"])

    def json(self, name: str) -> Any:
        return read_json(self.path / name)


def versions() -> dict[str, str]:
    """Versions that can change a result: Python and the numerical packages."""
    found = {"python": platform.python_version()}
    for package in (
        "uqabench",
        "torch",
        "numpy",
        "transformers",
        "tokenizers",
        "pyarrow",
        "numba",
        "scikit-learn",
        "scipy",
    ):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def stage_key(stage: str, config: dict[str, Any], inputs: dict[str, str]) -> str:
    """Identity of a stage's result: its name, format, config and the content of its inputs."""
    return hash_json({"stage": stage, "format": FORMAT, "config": config, "inputs": inputs})


def folder_digest(path: Path) -> str:
    """Digest of a folder that uqabench did not write: names and sizes, and the content of all but the largest files."""
    facts = {}
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        size = file.stat().st_size
        facts[str(file.relative_to(path))] = [size, sha256_file(file) if size <= LARGE_FILE else ""]
    return hash_json(facts)


def open_artifact(path: Path, stage: str | None = None, *, digests: bool = True) -> Artifact:
    """Open a finished stage folder, checking that its files are the ones that were written: by their digests, or,
    where `digests` is off and the folder is large (and its manifest has them), by their sizes."""
    manifest = read_json(path / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or "files" not in manifest:
        raise InputError(f"{path} was written by another version of uqabench: delete it and run its stage again.")
    _check_manifest(path, manifest)
    if stage is not None and manifest["stage"] != stage:
        raise InputError(f"{path} holds the stage '{manifest['stage']}', not '{stage}': give the folder of that stage.")
    sizes = {} if digests else _sizes(manifest)
    by_size = sum(sizes.values()) > SMALL_FOLDER
    for name, digest in manifest["files"].items():
        file = path / name
        known = by_size and name in sizes
        if not file.is_file() or (file.stat().st_size != sizes[name] if known else sha256_file(file) != digest):
            raise InputError(
                f"{file} is missing or changed since it was written: delete {path} and run its stage again."
            )
    if manifest["content"] != content_hash(manifest["files"]):
        raise InputError(
            f"{path}/manifest.json: 'content' is not that of the files: delete {path} and run its stage again."
        )
    return Artifact(path, manifest)


def _sizes(manifest: dict[str, Any]) -> dict[str, int]:
    """Bytes of each file, where the manifest says them of all."""
    sizes = manifest.get("sizes")
    fit = isinstance(sizes, dict) and all(type(size) is int and size >= 0 for size in sizes.values())
    return sizes if fit else {}


_FIELDS = {"stage": str, "key": str, "content": str, "config": dict, "inputs": dict, "files": dict}


def _check_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """A manifest that was damaged or written by hand is refused before anything reads a field of it."""
    for name, kind in _FIELDS.items():
        if not isinstance(manifest.get(name), kind):
            raise InputError(
                f"{path}/manifest.json: '{name}' is missing or of another type: delete {path} and run its stage again."
            )
    for name, digest in manifest["files"].items():
        parts = PurePosixPath(name).parts
        if not isinstance(digest, str) or not parts or name.startswith("/") or ".." in parts:
            raise InputError(
                f"{path}/manifest.json: 'files' is no list of digests of files in this folder: "
                f"delete {path} and run its stage again."
            )


Make = Callable[[Path, Path], float]
"""Fills a new folder: (out, work) → seconds spent. `work` outlives a killed run of the same key, for checkpoints."""


@dataclass(frozen=True)
class Stage:
    """One result that can be built into a folder, and what it depends on.

    name: of the stage. config: its settings as JSON values. inputs: content hash of what it reads, by role.
    make: fills the folder. digests: whether a finished folder is checked by its files' digests, or by their sizes
    (for folders so large that reading them takes seconds). together: every process of a run takes part in it, not the
    first alone. Two stages with equal name, config and inputs have equal results.
    """

    name: str
    config: dict[str, Any]
    inputs: dict[str, str]
    make: Make
    digests: bool = True
    together: bool = False

    @property
    def key(self) -> str:
        return stage_key(self.name, self.config, self.inputs)

    def finished(self, path: Path) -> Artifact | None:
        """The artefact at `path`, if it holds this very result."""
        if not (path / "manifest.json").exists():
            return None
        manifest = read_json(path / "manifest.json")
        if not isinstance(manifest, dict) or manifest.get("key") != self.key:
            return None
        return open_artifact(path, self.name, digests=self.digests)

    def build(self, path: Path) -> tuple[Artifact, bool]:
        """Reuse `path` when it holds this very result, else build it; returns the artefact and whether it was reused.

        The folder appears whole or not at all, and a killed build goes on from its last checkpoint.
        """
        path = Path(path)
        sweep(path)
        artifact = self.finished(path)
        work = work_folder(path)
        if artifact is not None:
            shutil.rmtree(work, ignore_errors=True)  # left by a kill just after the last rename
            return artifact, True
        try:
            _claim(work, self.key)
            artifact = self._make(path, work)
        except BaseException:
            if all(file.name == KEY_FILE for file in work.glob("*")):  # no checkpoint to go on from
                shutil.rmtree(work, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)
        return artifact, False

    def _make(self, path: Path, work: Path) -> Artifact:
        with atomic_folder(path) as out:
            seconds = self.make(out, work)
            write_json(out / "seconds.json", {"seconds": round(seconds, 3)})
            files = _hash_files(out)
            manifest = {
                "stage": self.name,
                "format": FORMAT,
                "key": self.key,
                "content": content_hash(files),
                "config": self.config,
                "inputs": self.inputs,
                "versions": versions(),
                "files": files,
                "sizes": {name: (out / name).stat().st_size for name in files},
            }
            write_json(out / "manifest.json", manifest)
        return Artifact(path, manifest)


def build(
    path: Path, stage: str, config: dict[str, Any], inputs: dict[str, str], make: Make, *, digests: bool = True
) -> tuple[Artifact, bool]:
    """`Stage(stage, config, inputs, make, digests).build(path)`."""
    return Stage(stage, config, inputs, make, digests).build(path)


def _claim(work: Path, key: str) -> None:
    """Make the folder for checkpoints of this key; another key's is removed."""
    if work.exists() and (not (work / KEY_FILE).exists() or read_json(work / KEY_FILE) != key):
        shutil.rmtree(work)
    write_json(work / KEY_FILE, key)


def content_hash(files: dict[str, str]) -> str:
    """Digest of what later stages read: of the files' own digests, without those that differ between equal runs."""
    return hash_json({name: digest for name, digest in files.items() if name.split("/")[0] not in UNHASHED})


def _hash_files(folder: Path) -> dict[str, str]:
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    return {name: sha256_file(folder / name) for name in names if not name.startswith("tensorboard")}
