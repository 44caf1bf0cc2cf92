"""Errors a user is meant to read: one sentence that names what is wrong and the way out."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class UQABenchError(Exception):
    """Base class. `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(UQABenchError):
    """A file, field, row, name or argument is wrong (exit code 2)."""

    exit_code = 2


class RunError(UQABenchError):
    """Valid input, but the run failed: NaN loss, full disk, out of memory (exit code 1)."""


class MissingExtra(InputError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package '{package}': install it with `pip install 'uqabench[{extra}]'`.")


def as_uqabench_error(error: Exception) -> UQABenchError:
    """`error` as one sentence: itself if it is one, what a user can do about an error of the machine, else its text."""
    if isinstance(error, UQABenchError):
        return error
    text = machine_sentence(error) or f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    found = RunError(text)
    found.__cause__ = error
    return found


def machine_sentence(error: Exception) -> str:
    """What a user can do about an error of the machine; empty for an error of the program."""
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            place = f" at {error.filename}" if error.filename else ""
            return f"The disk is full{place}: free some space and run it again."
        return f"{error.filename or 'A file'}: {error.strerror or error}: check the path and your permissions."
    # torch raises RuntimeError, and a subclass of it on a GPU, when it gets no memory
    if isinstance(error, MemoryError) or any(text in str(error) for text in ("can't allocate memory", "out of memory")):
        return "There is not enough memory: lower the token_budget of the stage, or its batch size, and run it again."
    return ""


def nearest(name: str, known: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" where one of the known names is close, else an empty string."""
    close = difflib.get_close_matches(str(name)[:100], list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
