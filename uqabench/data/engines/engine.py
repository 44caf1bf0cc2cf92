"""What an engine can do: work through files, and keep tables that are too large for memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from uqabench.errors import InputError
from uqabench.settings.data import EngineConfig

T = TypeVar("T")


class Engine(Protocol):
    """connection: Ibis's, to DuckDB or Spark. folder: where tables lie as Parquet; whoever works on them sees it."""

    connection: ibis.BaseBackend
    folder: Path

    def each(self, task: Callable[[int], T], count: int) -> Iterable[T]:
        """The task's results for 0, 1, …, count - 1, in this order."""


def stored(engine: Engine, expression: ibis.Table, name: str) -> ibis.Table:
    """The expression worked out: a table that lies in the engine's folder under `name`."""
    path = engine.folder / name
    engine.connection.to_parquet(expression, path)
    return engine.connection.read_parquet(path)


def batches(engine: Engine, expression: ibis.Table, name: str) -> Iterator[pa.RecordBatch]:
    """The expression's rows in its order, a part at a time."""
    stored(engine, expression, name)
    path = engine.folder / name
    # Spark writes a folder of files whose names are in the order of their rows.
    for file in sorted(path.glob("*.parquet")) if path.is_dir() else [path]:
        with pq.ParquetFile(file) as opened:
            yield from opened.iter_batches(1 << 20)


@contextmanager
def scratch(config: EngineConfig) -> Iterator[Path]:
    """A folder for as long as an engine works; nobody else on the machine can read it."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="uqabench-", dir=config.folder, ignore_cleanup_errors=True)
    except OSError as error:
        raise InputError(
            f"The engine's folder {config.folder} cannot be written ({error.strerror}): name another as "
            "data.prepare.engine.folder."
        ) from error
    with folder as name:
        yield Path(name).resolve()
