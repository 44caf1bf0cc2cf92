"""Files beside the published ones, for what those have no place for; whoever reads the published files ignores them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from uqabench.data.arrow import map_arrow
from uqabench.errors import InputError

_ACTIONS = "action"


class Sidecar:
    """The columns of a sidecar by name; none where there is no file.

    Raises InputError where the file is there and has other columns than `fields`.
    """

    def __init__(self, path: Path, fields: Mapping[str, pa.DataType]) -> None:
        self.path = path
        self.columns: dict[str, pa.Array] = map_arrow(path, fields) if path.is_file() else {}

    def check_rows(self, rows: int) -> None:
        """InputError unless the sidecar is absent or has as many rows as its file."""
        for column in self.columns.values():
            if len(column) != rows:
                raise InputError(f"{self.path} has {len(column)} rows and the file beside it {rows}: export it again.")

    def lists(self, name: str, kind: pa.DataType, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray | None:
        """Column `name`, a list of `kind` a row, for the given rows, end to end; None where it is absent.

        InputError where a row's list has not as many values as `lengths` says.
        """
        column = self.columns.get(name)
        if column is None:
            return None
        if column.type != pa.list_(kind) or column.null_count:
            raise InputError(f"{self.path}: column '{name}' should hold lists of {kind}: export it again.")
        part = column.take(pa.array(rows))
        fits = np.array_equal(np.diff(part.offsets.to_numpy()), lengths)
        if part.flatten().null_count or not fits:
            raise InputError(f"{self.path}: column '{name}' does not fit the sequences: export it again.")
        return part.flatten().to_numpy()

    @property
    def action_names(self) -> list[str]:
        """Names of the codes in the column `action`."""
        if _ACTIONS not in self.columns:
            return []
        metadata = pa.ipc.open_file(pa.memory_map(str(self.path))).schema.metadata or {}
        try:
            names = json.loads(metadata.get(b"actions", b"[]"))
        except ValueError:
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{self.path}: the names of the actions are damaged: export it again.")
        return names


def write_sidecar(path: Path, columns: Mapping[str, pa.Array], action_names: list[str] | None = None) -> None:
    """Write the columns as one record batch, the names of the actions in the schema."""
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    batch = batch.replace_schema_metadata({"actions": json.dumps(action_names or [])})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
