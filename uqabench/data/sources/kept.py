"""Files of a log as they were read, kept so that a day's log is added without reading the days before again.

A kept folder holds the ids of users as they stand in the log. Like a salt, it is kept apart from the store.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from uqabench.data.sources.columns import EncodedIds
from uqabench.data.sources.readers import Rows
from uqabench.errors import InputError
from uqabench.files import hash_json, read_json, sha256_file, write_bytes, write_json

_INDEX = "files.json"


@dataclass
class Part:
    """Consecutive rows of an interaction file, bad ones included."""

    rows: Rows
    users: EncodedIds
    items: EncodedIds
    times: np.ndarray | None
    actions: pa.Array | None


class KeptLog:
    """The interaction files that a store was made of, by path, each with its digest and, once read, its rows.

    reading: whatever decides how a file is read (columns, units, quotes); a folder is kept for one such reading.
    Raises InputError for a folder of another reading or one that is damaged.
    """

    def __init__(self, folder: Path, reading: dict[str, Any]) -> None:
        self.folder, self.reading = folder, hash_json(reading)
        index = read_json(folder / _INDEX) if (folder / _INDEX).exists() else {"reading": self.reading, "files": {}}
        if not isinstance(index, dict) or not isinstance(index.get("files"), dict):
            raise InputError(f"{folder / _INDEX} lists no files: delete {folder} and prepare from all files again.")
        if index.get("reading") != self.reading:
            raise InputError(f"{folder} was kept with other columns or options: give those, or name another folder.")
        self.files: dict[str, str] = index["files"]
        self._looked_at: set[str] = set()

    def digest(self, path: Path) -> str:
        """SHA-256 of a file; of one that is gone, that which it had."""
        name = str(path.resolve())
        if name not in self._looked_at and path.is_file():
            self.files[name] = sha256_file(path)
            self._looked_at.add(name)
        if name not in self.files:
            raise InputError(f"The interactions file {path} does not exist: name a file or a folder.")
        return self.files[name]

    def load(self, path: Path) -> list[Part] | None:
        """A file's rows as they were read; None where they are not kept."""
        place = self._place(path)
        if not place.exists():
            return None
        try:
            with pa.OSFile(str(place)) as file, pa.ipc.open_file(file) as reader:
                told = json.loads(reader.schema.metadata[b"parts"])
                batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
                [batch.validate(full=True) for batch in batches]
            return [_part(batch, about) for batch, about in zip(batches, told, strict=True)]
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, IndexError) as error:
            raise InputError(f"{place} is damaged: delete it, and the file is read again.") from error

    def save(self, path: Path, parts: Sequence[Part]) -> None:
        """Keep what was read of a file."""
        batches = [_batch(part) for part in parts]
        told = [_about(part) for part in parts]
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="zstd", emit_dictionary_deltas=False)
        schema = batches[0].schema.with_metadata({"parts": json.dumps(told)})
        with pa.ipc.new_file(sink, schema, options=options) as writer:
            for batch in batches:
                writer.write_batch(batch)
        write_bytes(self._place(path), sink.getvalue().to_pybytes())

    def finish(self, paths: Sequence[Path]) -> None:
        """Write down which files there are, once all of them were read."""
        files = {str(path.resolve()): self.digest(path) for path in paths}
        write_json(self.folder / _INDEX, {"reading": self.reading, "files": files})

    def _place(self, path: Path) -> Path:
        return self.folder / f"{self.digest(path)}.arrow"


def _batch(part: Part) -> pa.RecordBatch:
    """Ids as text: a file's batches would otherwise need one dictionary."""
    rows, size = part.rows, len(part.rows.reasons)
    time_text = _time_text(part)
    columns = {
        "user": _ids(part.users),
        "item": _ids(part.items),
        "time": pa.nulls(size, pa.int64()) if part.times is None else pa.array(part.times, pa.int64()),
        "time_text": pa.nulls(size, pa.large_string()) if time_text is None else time_text,
        "action": pa.nulls(size, pa.large_string()) if part.actions is None else part.actions.cast(pa.large_string()),
        "reason": pa.array(rows.reasons, pa.int8()),
        "number": pa.array(rows.numbers, pa.int64()),
        "lines": pa.array(rows.lines, pa.int64()),
    }
    return pa.record_batch(list(columns.values()), names=list(columns))


def _time_text(part: Part) -> pa.Array | None:
    column = part.rows.columns.get("time")
    return column if column is not None and pa.types.is_large_string(column.type) else None


def _about(part: Part) -> dict[str, Any]:
    """What the columns do not say."""
    return {
        "malformed": part.rows.malformed.tolist(), "malformed_lines": part.rows.malformed_lines.tolist(),
        "times": part.times is not None, "text": _time_text(part) is not None, "actions": part.actions is not None,
    }  # fmt: skip


def _ids(encoded: EncodedIds) -> pa.Array:
    codes = pa.array(encoded.codes, mask=encoded.codes < 0)
    return encoded.ids.cast(pa.large_string()).take(codes)


def _part(batch: pa.RecordBatch, about: dict[str, Any]) -> Part:
    column = {name: batch.column(name) for name in batch.schema.names}

    def numbers(name: str) -> np.ndarray:
        return column[name].to_numpy(zero_copy_only=False).copy()

    columns = {"time": column["time_text"]} if about["text"] else {}
    malformed = (np.array(about[name], np.int64) for name in ("malformed", "malformed_lines"))
    rows = Rows(columns, numbers("number"), numbers("lines"), numbers("reason"), *malformed)
    return Part(
        rows,
        _encoded(column["user"]),
        _encoded(column["item"]),
        numbers("time") if about["times"] else None,
        column["action"] if about["actions"] else None,
    )


def _encoded(ids: pa.Array) -> EncodedIds:
    encoded = ids.dictionary_encode()
    none = np.zeros(len(ids), bool)
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    return EncodedIds(encoded.dictionary.cast(pa.string()), codes, none, none)
