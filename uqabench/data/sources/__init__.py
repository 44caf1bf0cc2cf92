"""Sources of interaction logs, by the name that the command line takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uqabench.data.log import Source
from uqabench.data.sources.completejourney import CompleteJourney
from uqabench.data.sources.movielens import MovieLens100k
from uqabench.data.sources.synthetic import Synthetic
from uqabench.data.sources.tables import Tables
from uqabench.errors import InputError

SOURCES: dict[str, type[Source]] = {
    source.name: source for source in (CompleteJourney, MovieLens100k, Tables, Synthetic)
}


def open_source(name: str, path: Path | str | None = None, **options: Any) -> Source:
    """Make the source called `name`; `path` replaces the place where it looks for its files.

    Raises InputError for an unknown name or option, or files that are missing.
    """
    if name not in SOURCES:
        raise InputError(f"There is no source '{name}': choose one of {', '.join(SOURCES)}.")
    known = SOURCES[name].accepts
    for option in options:
        if option not in known:
            raise InputError(f"The source '{name}' has no option '{option}': it has {', '.join(known) or 'none'}.")
    return SOURCES[name](path=path, **options)
