"""Uncompressed Arrow IPC files of one record batch: written once, then memory-mapped without a copy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from uqabench.errors import InputError


def write_arrow(path: Path, columns: Mapping[str, pa.Array | np.ndarray]) -> None:
    """Write equally long columns as one record batch, so that each can be read back as one contiguous view."""
    arrays = {name: column if isinstance(column, pa.Array) else pa.array(column) for name, column in columns.items()}
    batch = pa.record_batch(list(arrays.values()), names=list(arrays))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


class Texts(Sequence[str]):
    """The strings of a mapped column as a read-only sequence; they are checked and made when one is asked for.

    `texts[i]` takes an index, a slice (a list) or an integer array (an object array). A column that a checked read
    would refuse raises InputError at the first use, naming the file.
    """

    def __init__(self, column: pa.Array, path: Path) -> None:
        self._column, self._path = column, path

    @cached_property
    def _list(self) -> list[str]:
        try:
            self._column.validate(full=True)
            return self._column.to_pylist()
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise _damaged(self._path) from error

    @cached_property
    def _array(self) -> np.ndarray:
        return np.array(self._list, object)

    def arrow(self) -> pa.Array:
        """The checked column itself."""
        try:
            self._column.validate(full=True)
        except pa.ArrowException as error:
            raise _damaged(self._path) from error
        return self._column

    def __len__(self) -> int:
        return len(self._column)

    def __iter__(self) -> Iterator[str]:
        return iter(self._list)

    def __getitem__(self, index: Any) -> Any:
        return self._array[index] if isinstance(index, np.ndarray) else self._list[index]

    def __eq__(self, other: object) -> bool:
        return self._list == (other._list if isinstance(other, Texts) else other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Texts({len(self)} of {self._path.name})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._list, object if dtype is None else dtype)

    def tolist(self) -> list[str]:
        """A list of its own."""
        return list(self._list)


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is truncated or corrupted: run `uqabench prepare` again.")


def map_arrow(
    path: Path,
    schema: Mapping[str, pa.DataType],
    optional: Mapping[str, pa.DataType] | None = None,
    *,
    full: bool = True,
) -> dict[str, pa.Array]:
    """Memory-map a file of `write_arrow` and return its columns; columns beyond `schema` come along.

    With `full`, values are checked too (offsets of strings and lists, UTF-8), so that no later read can leave the
    file; without, whoever reads strings or lists checks them first. Raises InputError naming the file when it is
    missing, not Arrow, truncated, lacks a column of `schema`, has one of `schema` or `optional` that is of another
    type, or has nulls.
    """
    if not path.exists():
        raise InputError(f"{path} is missing: run `uqabench prepare` again.")
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if reader.num_record_batches != 1:
            raise InputError(f"{path} holds {reader.num_record_batches} record batches and not one: prepare it again.")
        batch = reader.get_batch(0)
        batch.validate(full=full)
        names = batch.schema.names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path) from error
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
