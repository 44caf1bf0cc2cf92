"""What the commands of this folder do alike: names in an option, and errors as a sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import wraps
from typing import ParamSpec

from uqabench.errors import InputError, UQABenchError

Arguments = ParamSpec("Arguments")


def command(main: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """`main`, of which an error of uqabench is a sentence on standard error and exit code 2."""

    @wraps(main)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except UQABenchError as error:
            print(error, file=sys.stderr)
            return 2

    return run


def chosen_names(text: str, known: Iterable[str], option: str) -> list[str]:
    """The names in `text`, with commas between, in their order; InputError for one that is not known, and for none."""
    known = list(known)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise InputError(f"{option} has '{name}': choose from {', '.join(known)}.")
    if not names:
        raise InputError(f"{option} names nothing: choose from {', '.join(known)}.")
    return names


def check_positive(**options: float | None) -> None:
    """InputError for an option that is given (not None) and not above 0."""
    for name, value in options.items():
        if value is not None and not value > 0:
            raise InputError(f"--{name.replace('_', '-')} is {value:g}: it must be above 0.")
