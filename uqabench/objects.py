"""Classes of a user's own, named as `package.module:Class`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from uqabench.errors import InputError, nearest


def import_object(path: str, kind: str) -> Any:
    """The class or function that `path`, "package.module:Class", names; `kind` ("encoder", …) names it in messages.

    The module is looked for where Python looks, then in the current folder. InputError when it cannot be imported or
    holds nothing callable of that name.
    """
    module_name, _, name = path.partition(":")
    try:
        with _current_folder_last():
            module = importlib.import_module(module_name)
    except Exception as error:  # importing runs a user's code, which may raise anything
        reason = f"{type(error).__name__}: {error}".rstrip(". ")
        raise InputError(
            f"The {kind} {path} cannot be imported ({reason}): install its package, or put its folder on "
            f"PYTHONPATH, and write package.module:Class."
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        defined = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise InputError(f"The module {module_name} has no class '{name}'{nearest(name, defined)}.")
    return found


@contextmanager
def _current_folder_last() -> Iterator[None]:
    """Within the block, modules may also be imported from the current folder, if no other place has them.

    Never first, and never for longer: a file that is called `statistics.py` or `tqdm.py` there would take the place of
    the library that this program imports next.
    """
    try:
        folder = os.getcwd()
    except FileNotFoundError:  # the folder has been deleted
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        for index in reversed(range(len(sys.path))):  # the last: a folder that was on the path before stays
            if sys.path[index] == folder:
                del sys.path[index]
                break
