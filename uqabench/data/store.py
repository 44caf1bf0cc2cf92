"""The interaction store: every user's sequence in one memory-mapped Arrow folder.

manifest.json        of the artefact: settings, versions, digests of the input files and of the files below
store.json           source and its notes, settings, counts before and after, rules, split hash, content hash
offsets.arrow        offset int64 (U + 1,): user u's rows are offset[u]:offset[u + 1]
users.arrow          user_id string, split int8 (0 train, 1 evaluation, 2 validation)
interactions.arrow   item int32, and where the log has them timestamp int64 (Unix seconds), action int8; a large log has
                     several, interactions-00000.arrow and so on, each of consecutive users (`shards`)
catalogue/           items.arrow, vocabulary.arrow and one file for each attribute's distinct strings
rejected.jsonl       the first bad rows of each reason, by file and row
truth.arrow          what was planted (synthetic logs only)
questions_*.arrow    questions that came with the data (the published files only)
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from uqabench.artifact import Artifact, build, open_artifact
from uqabench.data.arrow import Texts, map_arrow, view, write_arrow
from uqabench.data.catalogue import ATTRIBUTES, Catalogue
from uqabench.data.facts import check_facts, facts_by_hand
from uqabench.data.shards import WHOLE, bounds_of, is_shard, own_shards, shard_bounds, shard_names
from uqabench.data.split import SPLITS, VALIDATION, two_sided
from uqabench.errors import InputError
from uqabench.files import folder_files, read_json, sha256_file, write_json

STAGE = "data"
FORMAT = 3
"""Of the files; a part of the stage's key."""
_READ = frozenset(
    ("store.json", "offsets.arrow", "users.arrow")
    + tuple(f"catalogue/{name}.arrow" for name in ("items", "vocabulary", *ATTRIBUTES))
)
_BESIDE = ("rejected.jsonl", "truth.arrow", "questions_train.arrow", "questions_evaluation.arrow")
STORE_FILES = _READ | {WHOLE, "manifest.json", "seconds.json", *_BESIDE}
"""Every file that may lie in the folder, beside shards."""
ASKED_ONLY = len(SPLITS)
"""The split of a sequence that questions are about and that belongs to no side: it trains, validates and evaluates no
encoder."""
_ROWS = {"item": pa.int32()}, {"timestamp": pa.int64(), "action": pa.int8()}


@dataclass(frozen=True, eq=False)
class InteractionStore:
    """U users' sequences, R interactions in all, in time order.

    offsets int64 (U + 1,), items int32 (R,), timestamps int64 (R,) Unix seconds or None, actions int8 (R,) or None
    (a code's name is manifest["actions"][code]), user_ids salted hashes, split int8 (U,): 0 train, 1 evaluation, 2
    validation, 3 (`ASKED_ONLY`) none. evaluation_hash: the split hash that there would be if validation users trained.
    Users are in the order of a digest of their rows. manifest: the content of store.json. first_user: index among all
    of the store's users of the first one here, where only a rank's shards are open.
    """

    offsets: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray | None
    actions: np.ndarray | None
    user_ids: Sequence[str]
    split: np.ndarray
    catalogue: Catalogue
    split_hash: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    first_user: int = 0

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

    def write_files(self, folder: Path, shard_rows: int | None = None) -> None:
        """Write all files but the manifest into `folder`, which exists; `artifact.build` makes that atomic.

        shard_rows: how many interactions a file may hold before others of the same kind stand beside it."""
        write_arrow(folder / "offsets.arrow", {"offset": self.offsets.astype(np.int64, copy=False)})
        columns = {"user_id": pa.array(self.user_ids, pa.string()), "split": self.split.astype(np.int8, copy=False)}
        write_arrow(folder / "users.arrow", columns)
        rows = {"item": self.items.astype(np.int32, copy=False)}
        if self.timestamps is not None:
            rows["timestamp"] = self.timestamps.astype(np.int64, copy=False)
        if self.actions is not None:
            rows["action"] = self.actions.astype(np.int8, copy=False)
        bounds = shard_bounds(self.offsets, shard_rows or max(1, len(self.items)))
        for name, first, last in zip(shard_names(len(bounds) - 1), bounds[:-1], bounds[1:], strict=True):
            span = slice(int(self.offsets[first]), int(self.offsets[last])) if len(bounds) > 2 else slice(None)
            write_arrow(folder / name, {column: values[span] for column, values in rows.items()})
        self.catalogue.save(folder / "catalogue")
        digests = {name: sha256_file(folder / name) for name in folder_files(folder)}
        shards = {} if len(bounds) == 2 else {"shards": bounds.tolist()}
        tail = {**shards, "split_hash": self.split_hash, "content_hash": _content_hash(digests, self.split)}
        if self.held_out == "validation":
            tail["evaluation_hash"] = self.evaluation_hash
        write_json(folder / "store.json", {**facts_by_hand(self), **self.manifest, **tail})

    def save(self, path: Path | str, shard_rows: int | None = None) -> Artifact:
        """Write a store made by hand as folder `path`, whole or not at all; InputError if its columns do not fit."""
        self.validate()

        def make(folder: Path, work: Path) -> float:
            self.write_files(folder, shard_rows)
            return 0.0

        # Nothing says how the arrays came about, so that no two such stores are taken for the same.
        return build(Path(path), STAGE, {}, {"by hand": uuid.uuid4().hex}, make)[0]

    @classmethod
    def open(cls, path: Path | str, *, rank: int = 0, world: int = 1) -> InteractionStore:
        """Memory-map a prepared folder after checking its files' sizes, their columns and what is small of them.

        What takes as long as reading everything, digests and the range of each value, is left to `verify`; the range
        of what compiled code indexes by is checked where that begins (`check_items`), strings when they are made.
        With `world` above 1, only the shards of `rank` are opened, and users are counted from the first one there
        (`first_user`). All shards at once are laid end to end, which copies them where there are several.
        Raises InputError naming the file that is missing, truncated, or of another format version, or where there are
        fewer shards than ranks.
        """
        return cls.of(open_prepared(Path(path)), rank=rank, world=world)

    @classmethod
    def verify(cls, path: Path | str) -> InteractionStore:
        """`open`, with every byte checked: digests, strings and lists, and that no value is past its table."""
        return cls.of(open_prepared(Path(path), digests=True), full=True)

    @classmethod
    def of(cls, artifact: Artifact, *, full: bool = False, rank: int = 0, world: int = 1) -> InteractionStore:
        """Memory-map a finished artefact, checking that the columns fit together; `full`: and all their values."""
        path, files = artifact.path, artifact.manifest["files"]
        for name in sorted(_READ - set(files)):
            raise InputError(f"{path}/manifest.json lacks the file '{name}': run `uqabench prepare` again.")
        facts = check_facts(path / "store.json", read_json(path / "store.json"))
        offsets = view(map_arrow(path / "offsets.arrow", {"offset": pa.int64()})["offset"])
        users = map_arrow(path / "users.arrow", {"user_id": pa.string(), "split": pa.int8()}, full=full)
        bounds = bounds_of(facts, len(offsets) - 1, files, path)
        own = own_shards(len(bounds) - 1, rank, world)
        names = [shard_names(len(bounds) - 1)[i] for i in own]
        rows = _end_to_end([map_arrow(path / name, *_ROWS) for name in names], path)
        split, here = view(users["split"]), slice(int(bounds[own.start]), int(bounds[own.stop]))
        if world > 1:
            offsets = offsets[here.start : here.stop + 1] - offsets[here.start]
            users = {name: column[here] for name, column in users.items()}
        store = cls(
            offsets=offsets,
            items=rows["item"],
            timestamps=rows.get("timestamp"),
            actions=rows.get("action"),
            user_ids=Texts(users["user_id"], path / "users.arrow"),
            split=view(users["split"]),
            first_user=here.start,
            catalogue=Catalogue.open(path / "catalogue", full=full),
            split_hash=facts["split_hash"],
            manifest=facts,
            path=path,
        )
        store._check_shape()
        if full:
            store.validate()
        if facts["content_hash"] != _content_hash(files, split):
            raise InputError(
                f"{path}/store.json: 'content_hash' is not that of the files: run `uqabench prepare` again."
            )
        return store

    def validate(self) -> None:
        """Check that the columns fit together; InputError names the one that does not."""
        self._check_shape()
        self.check_items()
        names = self.manifest.get("actions", [])
        if (
            self.actions is not None
            and names
            and not 0 <= int(self.actions.min()) <= int(self.actions.max()) < len(names)
        ):
            raise InputError(f"{self._where}interactions hold actions past the {len(names)} names of store.json.")

    def check_items(self) -> None:
        """InputError where an item is past the catalogue: for those who index by items without looking."""
        items = self.items
        if len(items) and not 0 <= int(items.min()) <= int(items.max()) < len(self.catalogue):
            raise InputError(f"{self._where}interactions hold items past the catalogue's {len(self.catalogue)}.")

    @property
    def _where(self) -> str:
        return f"{self.path}: " if self.path else ""

    def _check_shape(self) -> None:
        """What can be checked without reading the interactions."""
        where, offsets, size = self._where, self.offsets, len(self.items)
        if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != size or bool((np.diff(offsets) < 0).any()):
            raise InputError(f"{where}offsets do not rise from 0 to the {size} interactions: prepare it again.")
        if len(self.user_ids) != len(self) or len(self.split) != len(self):
            raise InputError(f"{where}users.arrow does not hold one row for each of the {len(self)} users.")
        if len(self) and not 0 <= int(self.split.min()) <= int(self.split.max()) <= ASKED_ONLY:
            raise InputError(f"{where}users.arrow holds a split that is none of 0, 1, 2 and 3: prepare it again.")


def open_prepared(path: Path, *, digests: bool = False) -> Artifact:
    """The artefact in a prepared folder, its files checked by size, or by their digests; InputError says what is
    wrong."""
    if not os.path.isdir(path):
        raise InputError(f"{path} is not a prepared data folder: make one with `uqabench prepare SOURCE`.")
    return open_artifact(path, STAGE, digests=digests)


def _end_to_end(shards: list[dict[str, pa.Array]], path: Path) -> dict[str, np.ndarray]:
    """The columns of consecutive shards; a view where there is one."""
    names = {name for rows in shards for name in rows}
    if any(set(rows) != names for rows in shards):
        raise InputError(f"{path}: its shards have different columns: run `uqabench prepare` again.")
    views = {name: [view(rows[name]) for rows in shards] for name in names}
    return {name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in views.items()}


def _content_hash(digests: dict[str, str], split: np.ndarray) -> str:
    """Digest of everything but the salted user ids, so that two preparations with different salts compare equal.

    digests: SHA-256 of the files by their names in the folder.
    """
    state = hashlib.sha256(split.astype(np.int8).tobytes())
    for name in sorted(digests):
        read = name in _READ and name.endswith(".arrow") and name != "users.arrow"
        if read or name == WHOLE or is_shard(name):
            state.update(f"{name} {digests[name]}\n".encode())
    return state.hexdigest()
