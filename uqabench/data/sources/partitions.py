"""Columns that a hive layout writes into the names of folders: `day=2024-05-01/part-0.parquet`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa

Partition = Mapping[str, str | None]
"""{column: its value in every row of a file}; None is no value."""

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""What Hive and Spark write for a value that is missing."""


def partition_of(path: Path) -> dict[str, str | None]:
    """The columns that the folders of `path`, relative to the folder of the log, say; %-escapes are resolved."""
    pairs = (part.split("=", 1) for part in path.parts[:-1] if "=" in part)
    return {unquote(name): None if value == NO_VALUE else unquote(value) for name, value in pairs if name}


def with_partition(names: Iterable[str], partition: Partition) -> list[str]:
    """A file's columns, and those of its path that it has not itself."""
    own = list(names)
    return [*own, *(name for name in partition if name not in own)]


def constant(value: str | None, size: int) -> pa.ChunkedArray:
    """A column of text with one value in all rows."""
    return pa.chunked_array([pa.repeat(pa.scalar(value, pa.large_string()), size)])
