"""Engines that hold a log where memory does not: DuckDB on this machine's disk, Spark on a cluster.

Files are read by their source, wherever the engine works, and laid down as Parquet (`staging`); what the rules ask of
the rows is written once, as Ibis expressions (`log`). What comes back is what stays of the log.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from uqabench.data.engines.engine import Engine
from uqabench.errors import InputError
from uqabench.settings.data import EngineConfig


def open_engine(config: EngineConfig) -> AbstractContextManager[Engine]:
    """The engine of the settings, started; it ends with the block, and what it laid down goes.

    Raises InputError, with the way to get it, where a package or Java is missing.
    """
    try:
        if config.name == "duckdb":
            from uqabench.data.engines.duckdb import duckdb_engine

            return duckdb_engine(config)
        from uqabench.data.engines.spark import spark_engine

        return spark_engine(config)
    except ImportError as error:
        raise InputError(
            f"The engine {config.name} needs packages that are not installed: run "
            f"`pip install 'uqabench[{config.name}]'`."
        ) from error
