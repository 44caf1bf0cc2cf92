"""The interaction store: every user's sequence in one memory-mapped Arrow folder.

manifest.json        of the artefact: settings, versions, digests of the input files and of the files below
store.json           source and its notes, settings, counts before and after, rules, split hash, content hash
offsets.arrow        offset int64 (U + 1,): user u's rows are offset[u]:offset[u + 1]
users.arrow          user_id string, split int8 (0 train, 1 evaluation, 2 validation)
interactions.arrow   item int32, and where the log has them timestamp int64 (Unix seconds), action int8
catalogue/           items.arrow, vocabulary.arrow and one file for each attribute's distinct strings
rejected.jsonl       the first bad rows of each reason, by file and row
truth.arrow          what was planted (synthetic logs only)
questions_*.arrow    questions that came with the data (the published files only)
"""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from uqabench.artifact import Artifact, build, open_artifact
from uqabench.data.arrow import map_arrow, view, write_arrow
from uqabench.data.catalogue import ATTRIBUTES, Catalogue
from uqabench.data.facts import check_facts, facts_by_hand
from uqabench.data.split import SPLITS, VALIDATION, two_sided
from uqabench.errors import InputError
from uqabench.files import folder_files, read_json, sha256_file, write_json

STAGE = "data"
FORMAT = 3
"""Of the files; a part of the stage's key."""
_READ = frozenset(
    ("store.json", "offsets.arrow", "users.arrow", "interactions.arrow")
    + tuple(f"catalogue/{name}.arrow" for name in ("items", "vocabulary", *ATTRIBUTES))
)
_BESIDE = ("rejected.jsonl", "truth.arrow", "questions_train.arrow", "questions_evaluation.arrow")
STORE_FILES = _READ | {"manifest.json", "seconds.json", *_BESIDE}
"""Every file that may lie in the folder."""
ASKED_ONLY = len(SPLITS)
"""The split of a sequence that questions are about and that belongs to no side: it trains, validates and evaluates no
encoder."""


@dataclass(frozen=True, eq=False)
class InteractionStore:
    """U users' sequences, R interactions in all, in time order.

    offsets int64 (U + 1,), items int32 (R,), timestamps int64 (R,) Unix seconds or None, actions int8 (R,) or None
    (a code's name is manifest["actions"][code]), user_ids salted hashes, split int8 (U,): 0 train, 1 evaluation, 2
    validation, 3 (`ASKED_ONLY`) none. evaluation_hash: the split hash that there would be if validation users trained.
    Users are in the order of a digest of their rows. manifest: the content of store.json.
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
        """int64: the users of "train", "evaluation" or "validation" in ascending order; all with None."""
        if split is None:
            return np.arange(len(self), dtype=np.int64)
        if split not in SPLITS:
            raise InputError(f"There is no split '{split}': choose one of {', '.join(SPLITS)}.")
        return np.flatnonzero(self.split == SPLITS.index(split)).astype(np.int64)

    @property
    def held_out(self) -> str:
        """The side on which training may be watched: "validation", or "evaluation" where nobody validates."""
        return "validation" if bool((self.split == VALIDATION).any()) else "evaluation"

    @property
    def evaluation_hash(self) -> str:
        """Which sequences evaluate: the split hash of the store with validation users counted as training users."""
        return self.manifest.get("evaluation_hash", self.split_hash)

    def about(self, split: str) -> InteractionStore:
        """The store as questions about `split` know it: about evaluation users, validation users train."""
        if split != "evaluation" or self.held_out == "evaluation":
            return self
        return replace(self, split=two_sided(self.split), split_hash=self.evaluation_hash)

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

    @property
    def content_hash(self) -> str:
        """Digest of all that later stages read; it does not depend on the salt."""
        return self.manifest["content_hash"]

    def write_files(self, folder: Path) -> None:
        """Write all files but the manifest into `folder`, which exists; `artifact.build` makes that atomic."""
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
        digests = {name: sha256_file(folder / name) for name in folder_files(folder)}
        tail = {"split_hash": self.split_hash, "content_hash": _content_hash(digests, self.split)}
        if self.held_out == "validation":
            tail["evaluation_hash"] = self.evaluation_hash
        write_json(folder / "store.json", {**facts_by_hand(self), **self.manifest, **tail})

    def save(self, path: Path | str) -> Artifact:
        """Write a store made by hand as folder `path`, whole or not at all; InputError if its columns do not fit."""
        self.validate()

        def make(folder: Path, work: Path) -> float:
            self.write_files(folder)
            return 0.0

        # Nothing says how the arrays came about, so that no two such stores are taken for the same.
        return build(Path(path), STAGE, {}, {"by hand": uuid.uuid4().hex}, make)[0]

    @classmethod
    def open(cls, path: Path | str) -> InteractionStore:
        """Memory-map a prepared folder after checking every file against the digests of its manifest.

        Raises InputError naming the file that is missing, truncated, altered or of another format version.
        """
        return cls.of(open_prepared(Path(path)))

    @classmethod
    def of(cls, artifact: Artifact) -> InteractionStore:
        """Memory-map a finished artefact, checking what its digests do not say: that the columns fit together."""
        path, files = artifact.path, artifact.manifest["files"]
        for name in sorted(_READ - set(files)):
            raise InputError(f"{path}/manifest.json lacks the file '{name}': run `uqabench prepare` again.")
        facts = check_facts(path / "store.json", read_json(path / "store.json"))
        offsets = view(map_arrow(path / "offsets.arrow", {"offset": pa.int64()})["offset"])
        users = map_arrow(path / "users.arrow", {"user_id": pa.string(), "split": pa.int8()})
        rows = map_arrow(
            path / "interactions.arrow", {"item": pa.int32()}, {"timestamp": pa.int64(), "action": pa.int8()}
        )
        store = cls(
            offsets=offsets,
            items=view(rows["item"]),
            timestamps=view(rows["timestamp"]) if "timestamp" in rows else None,
            actions=view(rows["action"]) if "action" in rows else None,
            user_ids=users["user_id"].to_pylist(),
            split=view(users["split"]),
            catalogue=Catalogue.open(path / "catalogue"),
            split_hash=facts["split_hash"],
            manifest=facts,
            path=path,
        )
        store.validate()
        if facts["content_hash"] != _content_hash(files, store.split):
            raise InputError(
                f"{path}/store.json: 'content_hash' is not that of the files: run `uqabench prepare` again."
            )
        return store

    def validate(self) -> None:
        """Check that the columns fit together; InputError names the one that does not."""
        where = f"{self.path}: " if self.path else ""
        offsets, items = self.offsets, self.items
        if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(items) or bool((np.diff(offsets) < 0).any()):
            raise InputError(f"{where}offsets do not rise from 0 to the {len(items)} interactions: prepare it again.")
        if len(self.user_ids) != len(self) or len(self.split) != len(self):
            raise InputError(f"{where}users.arrow does not hold one row for each of the {len(self)} users.")
        if not np.isin(self.split, range(ASKED_ONLY + 1)).all():
            raise InputError(f"{where}users.arrow holds a split that is none of 0, 1, 2 and 3: prepare it again.")
        if len(items) and not 0 <= int(items.min()) <= int(items.max()) < len(self.catalogue):
            raise InputError(f"{where}interactions hold items past the catalogue's {len(self.catalogue)}.")
        names = self.manifest.get("actions", [])
        if (
            self.actions is not None
            and names
            and not 0 <= int(self.actions.min()) <= int(self.actions.max()) < len(names)
        ):
            raise InputError(f"{where}interactions hold actions past the {len(names)} names of store.json.")


def open_prepared(path: Path) -> Artifact:
    """The artefact in a prepared folder, its files checked against their digests; InputError says what is wrong."""
    if not os.path.isdir(path):
        raise InputError(f"{path} is not a prepared data folder: make one with `uqabench prepare SOURCE`.")
    return open_artifact(path, STAGE)


def _content_hash(digests: dict[str, str], split: np.ndarray) -> str:
    """Digest of everything but the salted user ids, so that two preparations with different salts compare equal.

    digests: SHA-256 of the files by their names in the folder.
    """
    state = hashlib.sha256(split.astype(np.int8).tobytes())
    for name in sorted(digests):
        if name in _READ and name.endswith(".arrow") and name != "users.arrow":
            state.update(f"{name} {digests[name]}\n".encode())
    return state.hexdigest()
