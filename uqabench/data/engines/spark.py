"""Spark, on a cluster or on threads of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ibis
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from uqabench.data.engines.engine import Engine, T, scratch
from uqabench.errors import InputError
from uqabench.settings.data import EngineConfig

_JAVA = 17
"""The oldest that Spark 4 runs on."""
_LOCAL_PARTS = 16
"""Into how many parts Spark lays rows on one machine, to group and sort them."""


@dataclass
class Spark:
    """See `Engine`."""

    connection: ibis.BaseBackend
    folder: Path
    session: SparkSession

    def each(self, task: Callable[[int], T], count: int) -> Iterable[T]:
        here = partial(_from_folder, os.getcwd(), task)
        return self.session.sparkContext.parallelize(range(count), count).map(here).collect()


@contextmanager
def spark_engine(config: EngineConfig) -> Iterator[Engine]:
    """Spark at the settings' master. A session that this process has already is used as it is, and goes on."""
    _check_java()
    given = SparkSession.getActiveSession()
    with scratch(config) as folder:
        session = given or _session(config, folder)
        try:
            yield Spark(ibis.pyspark.connect(session), folder, session)
        except (PySparkException, Py4JError) as error:  # what they say may hold a row of the log
            raise InputError(
                f"Spark stopped ({type(error).__name__}): its own log, above, says why; all of its machines need "
                "uqabench, and the same paths to the log and to data.prepare.engine.folder."
            ) from error
        finally:
            if given is None:
                session.stop()


def _from_folder(folder: str, task: Callable[[int], T], number: int) -> T:
    """The task's result, with relative paths taken from `folder`: Spark's workers begin elsewhere."""
    with suppress(OSError):  # a machine of a cluster may lack it, and absolute paths need none
        os.chdir(folder)
    return task(number)


def _session(config: EngineConfig, folder: Path) -> SparkSession:
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = (
        SparkSession.builder.appName("uqabench")
        .master(config.master)
        .config("spark.driver.memory", f"{round(1024 * config.memory_gb)}m")
        .config("spark.local.dir", str(folder / "spilled"))
        .config("spark.log.level", "ERROR")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
    )
    if config.master.startswith("local"):  # few threads, for each of which two hundred parts would be too small
        builder = builder.config("spark.sql.shuffle.partitions", str(_LOCAL_PARTS))
    try:
        return builder.getOrCreate()
    except Exception as error:  # the JVM may raise anything
        raise InputError(
            f"Spark cannot be started at {config.master}: its own log, above, says why; give another --master."
        ) from error


def _check_java() -> None:
    """InputError where there is no Java, or one that is too old."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    way = f"install Java {_JAVA} or later (on Debian: `apt-get install openjdk-{_JAVA}-jre-headless`)"
    if java is None:
        raise InputError(f"The engine spark needs Java, and there is none: {way}.")
    told = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
    found = re.search(r'version "(\d+)', told)
    if found is None or int(found[1]) < _JAVA:
        raise InputError(f"The engine spark needs Java {_JAVA}, and {java} is older: {way}, and set JAVA_HOME to it.")
