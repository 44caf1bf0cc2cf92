"""The interaction store: every user's sequence in one memory-mapped Arrow folder.

manifest.json        what was done: config, source, counts, rules, split hash, digests of the files below
offsets.arrow        offset int64 (U + 1,): user u's rows are offset[u]:offset[u + 1]
users.arrow          user_id string, split int8 (0 train, 1 evaluation)
interactions.arrow   item int32, and where the log has them timestamp int64 (Unix seconds), action int8
catalogue/           items.arrow, vocabulary.arrow and one file for each attribute's distinct strings
rejected.jsonl       the first bad rows of each reason, by file and row
truth.arrow          what was planted (synthetic logs only)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from uqabench.data.arrow import map_arrow, view, write_arrow
from uqabench.data.catalogue import Catalogue
from uqabench.errors import InputError
from uqabench.files import read_json, sha256_file, write_json

ARTEFACT = "interaction-store"
FORMAT_VERSION = 1
STORE_FILES = frozenset(
    (
        "manifest.json",
        "offsets.arrow",
        "users.arrow",
        "interactions.arrow",
        "catalogue",
        "rejected.jsonl",
        "truth.arrow",
    )
)
SPLITS = ("train", "evaluation")


@dataclass(frozen=True, eq=False)
class InteractionStore:
    """U users' sequences, R interactions in all, in time order.

    offsets int64 (U + 1,), items int32 (R,), timestamps int64 (R,) Unix seconds or None, actions int8 (R,) or None
    (a code's name is manifest["actions"][code]), user_ids salted hashes in the order of the raw ids,
    split int8 (U,): 0 train, 1 evaluation.
    """

    offsets: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray | None
    actions: np.ndarray | None
    user_ids: list[str]
    split: np.ndarray
    catalogue: Catalogue
    split_hash: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None

    def __len__(self) -> int:
        """The number of users."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 (U,): the number of interactions of each user."""
        return np.diff(self.offsets)

    def users(self, split: str | None = None) -> np.ndarray:
        """int64: the users of "train" or "evaluation" in ascending order; all with None."""
        if split is None:
            return np.arange(len(self), dtype=np.int64)
        if split not in SPLITS:
            raise InputError(f"There is no split '{split}': choose one of {', '.join(SPLITS)}.")
        return np.flatnonzero(self.split == SPLITS.index(split)).astype(np.int64)

    def sequence(self, user: int) -> np.ndarray:
        """int32 view of a user's items in time order."""
        return self.items[self._span(user)]

    def basket_starts(self, user: int) -> np.ndarray:
        """bool: True where a new timestamp begins (everywhere in a log without timestamps)."""
        span = self._span(user)
        starts = np.ones(span.stop - span.start, bool)
        if self.timestamps is not None:
            times = self.timestamps[span]
            starts[1:] = times[1:] != times[:-1]
        return starts

    def _span(self, user: int) -> slice:
        if not 0 <= user < len(self):
            raise InputError(f"User {user} is past the store's {len(self)} users.")
        return slice(int(self.offsets[user]), int(self.offsets[user + 1]))

    def save(self, folder: Path) -> None:
        """Write all files into `folder`; the caller makes that atomic (`uqabench.files.atomic_folder`)."""
        folder.mkdir(parents=True, exist_ok=True)
        write_arrow(folder / "offsets.arrow", {"offset": self.offsets.astype(np.int64, copy=False)})
        columns = {"user_id": pa.array(self.user_ids, pa.string()), "split": self.split.astype(np.int8, copy=False)}
        write_arrow(folder / "users.arrow", columns)
        rows = {"item": self.items.astype(np.int32, copy=False)}
        if self.timestamps is not None:
            rows["timestamp"] = self.timestamps.astype(np.int64, copy=False)
        if self.actions is not None:
            rows["action"] = self.actions.astype(np.int8, copy=False)
        write_arrow(folder / "interactions.arrow", rows)
        self.catalogue.save(folder / "catalogue")
        files = {
            file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
            for file in sorted(folder.rglob("*"))
            if file.is_file() and file.name != "manifest.json"
        }
        head = {"artefact": ARTEFACT, "format_version": FORMAT_VERSION}
        tail = {"split_hash": self.split_hash, "content_hash": _content_hash(files, self.split), "files": files}
        write_json(folder / "manifest.json", {**head, **self.manifest, **tail})

    @classmethod
    def open(cls, path: Path | str) -> InteractionStore:
        """Memory-map a prepared folder after checking every file against the digests of its manifest.

        Raises InputError naming the file that is missing, truncated, altered or of another format version.
        """
        path = Path(path)
        manifest = _manifest(path)
        for name, facts in manifest["files"].items():
            _check_file(path / name, facts)
        offsets = view(map_arrow(path / "offsets.arrow", {"offset": pa.int64()})["offset"])
        users = map_arrow(path / "users.arrow", {"user_id": pa.string(), "split": pa.int8()})
        rows = map_arrow(path / "interactions.arrow", {"item": pa.int32()})
        store = cls(
            offsets=offsets,
            items=view(rows["item"]),
            timestamps=view(rows["timestamp"]) if "timestamp" in rows else None,
            actions=view(rows["action"]) if "action" in rows else None,
            user_ids=users["user_id"].to_pylist(),
            split=view(users["split"]),
            catalogue=Catalogue.open(path / "catalogue"),
            split_hash=manifest["split_hash"],
            manifest=manifest,
            path=path,
        )
        store.validate()
        return store

    def validate(self) -> None:
        """Check that the columns fit together; InputError names the one that does not."""
        where = f"{self.path}: " if self.path else ""
        offsets, items = self.offsets, self.items
        if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(items) or bool((np.diff(offsets) < 0).any()):
            raise InputError(f"{where}offsets do not rise from 0 to the {len(items)} interactions: prepare it again.")
        if len(self.user_ids) != len(self) or len(self.split) != len(self):
            raise InputError(f"{where}users.arrow does not hold one row for each of the {len(self)} users.")
        if len(items) and not 0 <= int(items.min()) <= int(items.max()) < len(self.catalogue):
            raise InputError(f"{where}interactions hold items past the catalogue's {len(self.catalogue)}.")


def _manifest(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise InputError(f"{path} is not a prepared data folder: make one with `uqabench prepare SOURCE`.")
    manifest = read_json(path / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("artefact") != ARTEFACT:
        raise InputError(f"{path}/manifest.json does not describe prepared data: name the folder that `prepare` wrote.")
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}/manifest.json has format version {version}, this program reads {FORMAT_VERSION}: "
            "run `uqabench prepare` again."
        )
    files = manifest.get("files")
    listed = isinstance(files, dict) and all(isinstance(facts, dict) for facts in files.values())
    if not listed or not isinstance(manifest.get("split_hash"), str):
        raise InputError(f"{path}/manifest.json lacks 'files' or 'split_hash': run `uqabench prepare` again.")
    return manifest


def _check_file(file: Path, facts: dict[str, Any]) -> None:
    way_out = "run `uqabench prepare` again."
    if not file.is_file():
        raise InputError(f"{file} is missing: {way_out}")
    size = file.stat().st_size
    if size != facts.get("bytes"):
        raise InputError(
            f"{file} has {size} bytes and should have {facts.get('bytes')}: it is truncated or foreign; {way_out}"
        )
    if sha256_file(file) != facts.get("sha256"):
        raise InputError(f"{file} is corrupted (its digest is not the manifest's): {way_out}")


def _content_hash(files: dict[str, dict[str, Any]], split: np.ndarray) -> str:
    """Digest of everything but the salted user ids, so that two preparations with different salts compare equal."""
    state = hashlib.sha256(split.astype(np.int8).tobytes())
    for name, facts in sorted(files.items()):
        if name.endswith(".arrow") and name not in ("users.arrow", "truth.arrow"):
            state.update(f"{name} {facts['sha256']}\n".encode())
    return state.hexdigest()
