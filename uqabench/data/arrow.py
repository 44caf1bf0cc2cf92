"""Uncompressed Arrow IPC files of one record batch: written once, then memory-mapped without a copy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from uqabench.errors import InputError


def write_arrow(path: Path, columns: Mapping[str, pa.Array | np.ndarray]) -> None:
    """Write equally long columns as one record batch, so that each can be read back as one contiguous view."""
    arrays = {name: column if isinstance(column, pa.Array) else pa.array(column) for name, column in columns.items()}
    batch = pa.record_batch(list(arrays.values()), names=list(arrays))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def map_arrow(
    path: Path, schema: Mapping[str, pa.DataType], optional: Mapping[str, pa.DataType] | None = None
) -> dict[str, pa.Array]:
    """Memory-map a file of `write_arrow` and return its columns; columns beyond `schema` come along.

    The values are checked in full (offsets of strings and lists, UTF-8), so that no later read can leave the file.
    Raises InputError naming the file when it is missing, not Arrow, truncated, lacks a column of `schema`, has one of
    `schema` or `optional` that is of another type, or has nulls.
    """
    if not path.exists():
        raise InputError(f"{path} is missing: run `uqabench prepare` again.")
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if reader.num_record_batches != 1:
            raise InputError(f"{path} holds {reader.num_record_batches} record batches and not one: prepare it again.")
        batch = reader.get_batch(0)
        batch.validate(full=True)
        names = batch.schema.names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is truncated or corrupted: run `uqabench prepare` again.") from error
    if len(set(names)) < len(names):
        raise InputError(f"{path} has two columns of one name: run `uqabench prepare` again.")
    columns = dict(zip(names, batch.columns, strict=True))
    for name, kind in {**(optional or {}), **schema}.items():
        if name not in columns and name not in schema:
            continue
        found = columns[name].type if name in columns else "no such column"
        if found != kind:
            raise InputError(f"{path}: column '{name}' should be {kind} and is {found}: run `uqabench prepare` again.")
        if columns[name].null_count:
            raise InputError(f"{path}: column '{name}' has nulls: run `uqabench prepare` again.")
    return columns


def view(column: pa.Array) -> np.ndarray:
    """The numbers of a column as a read-only array over the same memory."""
    return column.to_numpy(zero_copy_only=True)
