"""One process a folder: a lock file that names its holder."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from uqabench.errors import InputError
from uqabench.files import read_json, write_json


@contextmanager
def folder_lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold `folder` for this process; the lock file and its holder's name lie beside the folder.

    Another process's lock is an InputError that names that process, or is waited for with `wait`. The system frees the
    lock of a process that dies.
    """
    folder = folder.absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=-1 if wait else 0)
        holder = folder.with_name(f".{folder.name}.holder.json")
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"{folder} is in use by {_described(holder)}: wait for it with --wait, or choose another name."
        ) from error
    except OSError as error:
        raise InputError(
            f"{folder} cannot be locked ({error.strerror}): choose a folder that you may write to."
        ) from error
    try:
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        write_json(holder, {"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S"), "command": command})
        yield
    finally:
        with suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()


def _described(holder: Path) -> str:
    try:
        facts = read_json(holder)
        return f"process {facts['pid']} (`{facts['command']}`, since {facts['since']})"
    except (InputError, KeyError, TypeError):
        return "another process"
