"""The published UQABench files as a source: a store with its own split, token ids and questions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from uqabench.data.facts import counts_of_store
from uqabench.data.log import RawLog
from uqabench.data.official.factor import Texts
from uqabench.data.official.given import GIVEN_FILES
from uqabench.data.official.layout import ITEM_NAMES, SIDES, data_file, sidecar
from uqabench.data.official.qwen import token_bytes
from uqabench.data.official.reading import Reading
from uqabench.data.rejections import Rejections
from uqabench.errors import InputError
from uqabench.files import sha256_file
from uqabench.settings.data import PrepareConfig

TOKENIZER = "qwen2.5"
"""What store.json calls the tokenizer of such a store."""


class Official:
    """The four Arrow files of a folder `path`; `tokenizer`: where the Qwen2.5 vocabulary is, if not in its package.

    The files come filtered and split, so that the preparation's own filters and split are not applied. Items whose
    features contradict one another keep what most interactions say. A question's history is looked for among the users'
    sequences; one that begins none of them becomes a sequence that only questions are about.
    """

    name = "official"
    accepts = ("tokenizer",)

    def __init__(self, path: Path | str | None = None, *, tokenizer: str | None = None) -> None:
        if path is None:
            raise InputError("The source 'official' needs the folder of the four published Arrow files: give --path.")
        self.folder, self.tokenizer = Path(path), tokenizer
        self.files = [data_file(stage, side) for stage in ("pretrain", "align") for side in SIDES.values()]
        for name in self.files:
            if not (self.folder / name).is_file():
                raise InputError(f"{self.folder / name} is missing: name the folder of the four published files.")
        self.notes = ["The published files are taken as they are: no filter is applied, and the split is theirs."]

    def options(self) -> dict[str, Any]:
        return {}

    def inputs(self) -> dict[str, str]:
        names = [*self.files, *map(sidecar, self.files), ITEM_NAMES]
        found = {name: sha256_file(self.folder / name) for name in names if (self.folder / name).is_file()}
        return {**found, "tokenizer": sha256_file(token_bytes(self.tokenizer)[1])}

    def read(self, rejections: Rejections) -> RawLog:
        """Such files are no raw log (InputError)."""
        raise InputError("The source 'official' is read as a finished store: prepare it with `uqabench prepare`.")

    def write_store(self, folder: Path, config: PrepareConfig) -> None:
        """Write the store's files and its question sets into `folder`, which exists.

        Raises InputError for files that cannot be read, and under `config.strict` for the first bad row or the first
        item with two descriptions.
        """
        if config.exclude_items or config.exclude_categories:
            raise InputError("The source 'official' is taken as it is: leave out what excludes items or categories.")
        rejections = Rejections(config.strict)
        reading = Reading(self.folder, rejections, Texts(token_bytes(self.tokenizer)[0]))
        store, questions, notes = reading.store()
        read = {"users": reading.n_users, "items": len(store.catalogue), "interactions": reading.n_interactions}
        facts = {
            "source": {"name": self.name, "options": self.options(), "inputs": self.inputs()},
            "config": {name: value for name, value in config.record().items() if name != "salt_file"},
            "notes": [*self.notes, *notes],
            "attributes": list(store.catalogue.attributes()),
            "tokenizer": TOKENIZER,
            "actions": reading.actions,
            "counts": {"read": read, **counts_of_store(store)},
            "removals": [],
            "rejected": rejections.summary(),
        }
        rejections.save(folder / "rejected.jsonl")
        for split, found in questions.items():
            found.save(folder / GIVEN_FILES[split])
        replace(store, manifest=facts).write_files(folder)
