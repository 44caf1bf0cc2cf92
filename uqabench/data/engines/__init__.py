"""Engines that hold a log where memory does not: DuckDB on this machine's disk, Spark on a cluster.

Files are read by their source, wherever the engine works, and laid down as Parquet (`staging`); what the rules ask of
the rows is written once, as Ibis expressions (`log`). What comes back is what stays of the log.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from uqabench.data.log import PartedSource
from uqabench.data.rejections import Rejections
from uqabench.errors import InputError
from uqabench.settings.data import EngineConfig

if TYPE_CHECKING:
    from uqabench.data.engines.log import EngineLog


def engine_log(source: PartedSource, config: EngineConfig, rejections: Rejections) -> AbstractContextManager[EngineLog]:
    """The log of `source`, read, in the engine of the settings; bad rows go to `rejections`. The engine ends with the
    block, and what it laid down goes.

    Raises InputError for files that cannot be read, and, with the way to get it, where a package or Java is missing.
    """
    try:
        from uqabench.data.engines.log import log_in

        if config.name == "duckdb":
            from uqabench.data.engines.duckdb import duckdb_engine as engine
        else:
            from uqabench.data.engines.spark import spark_engine as engine
    except ImportError as error:
        raise InputError(
            f"The engine {config.name} needs packages that are not installed: run "
            f"`pip install 'uqabench[{config.name}]'`."
        ) from error
    return log_in(engine(config), source, rejections)
