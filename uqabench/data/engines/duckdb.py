"""DuckDB, in this process: what exceeds its memory lies on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import ibis

from uqabench.data.engines.engine import Engine, T, scratch
from uqabench.errors import InputError
from uqabench.settings.data import EngineConfig


@dataclass
class DuckDB:
    """See `Engine`."""

    connection: ibis.BaseBackend
    folder: Path

    def each(self, task: Callable[[int], T], count: int) -> Iterable[T]:
        return map(task, range(count))


@contextmanager
def duckdb_engine(config: EngineConfig) -> Iterator[Engine]:
    """DuckDB within the memory and folder that the settings name."""
    with scratch(config) as folder:
        connection = ibis.duckdb.connect(
            memory_limit=f"{config.memory_gb}GB", temp_directory=str(folder / "spilled"), preserve_insertion_order=False
        )
        try:
            yield DuckDB(connection, folder)
        except duckdb.OutOfMemoryException as error:
            raise InputError(
                f"DuckDB needs more than {config.memory_gb:g} GB, or its disk is full: raise "
                "data.prepare.engine.memory_gb, or name a folder with room as data.prepare.engine.folder."
            ) from error
        except duckdb.Error as error:  # what it says may hold a row of the log
            raise InputError(
                f"DuckDB stopped ({type(error).__name__}): name another data.prepare.engine.folder, or no engine."
            ) from error
        finally:
            connection.disconnect()
