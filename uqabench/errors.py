"""Errors a user is meant to read: one sentence that names what is wrong and the way out."""

from __future__ import annotations


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
