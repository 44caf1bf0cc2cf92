"""Sources of interaction logs, by the name that the command line takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uqabench.data.log import Source
from uqabench.data.official import Official
from uqabench.data.sources.completejourney import CompleteJourney
from uqabench.data.sources.movielens import MovieLens100k
from uqabench.data.sources.recipe import packaged_recipes, recipe_source
from uqabench.data.sources.synthetic import Synthetic
from uqabench.data.sources.tables import Tables
from uqabench.errors import InputError
from uqabench.registry import Registry, reason

REGISTRY: Registry[type[Source]] = Registry("source", "uqabench.sources")

for _source in (CompleteJourney, MovieLens100k, Tables, Synthetic, Official):
    REGISTRY.register(_source.name)(_source)
for _name in packaged_recipes():
    REGISTRY.register(_name)(recipe_source(_name))


def open_source(name: str, path: Path | str | None = None, **options: Any) -> Source:
    """Make the source called `name`, "package.module:Class", or that of a recipe file `name.yaml`.

    `path` replaces the place where it looks for its files.
    Raises InputError for an unknown name or option, or files that are missing.
    """
    cls = recipe_source(Path(name)) if name.endswith(".yaml") else REGISTRY.find(name)
    known = getattr(cls, "accepts", ())
    for option in options:
        if option not in known:
            raise InputError(f"The source '{name}' has no option '{option}': it has {', '.join(known) or 'none'}.")
    try:
        return cls(path=path, **options)
    except InputError:
        raise
    except Exception as error:  # a class of a user's own may raise anything
        raise InputError(f"The source {name} cannot be made: {reason(error)}.") from error


def source_names() -> tuple[str, ...]:
    """Every name that `open_source` knows, sorted: built-in ones, and those declared as entry points."""
    return REGISTRY.names()
