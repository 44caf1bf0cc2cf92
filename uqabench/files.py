"""Writing aside and renaming, hashing, and reading JSON with errors a user can act on."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from uqabench.errors import InputError, RunError, UQABenchError


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed for want of space. Libraries in Rust (safetensors, tokenizers) raise no OSError."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if isinstance(error, RunError) and error.__cause__ is not None:  # one of ours, about such an error
        return is_disk_full(error.__cause__)
    return any(text in str(error) for text in ("No space left on device", "Disk quota exceeded"))


def _failed(path: Path, error: BaseException) -> RunError | InputError:
    if is_disk_full(error):
        return RunError(f"The disk is full while writing {path}: free some space and run the same command again.")
    reason = getattr(error, "strerror", None) or error
    return InputError(f"Cannot write {path} ({reason}): choose a folder that you may write to.")


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its place on success and vanishes on failure.

    A folder cannot be exchanged in one step, so an old `path` is first renamed to `path.old-*`; a process killed
    between the two renames leaves the finished new folder and the old one beside each other, never a mixture.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    except OSError as error:
        raise _failed(path, error) from error
    try:
        yield partial
        replace_folder(partial, path)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, UQABenchError) or not (isinstance(error, OSError) or is_disk_full(error)):
            raise
        name = getattr(error, "filename", None)
        if name is None or is_disk_full(error) or Path(os.fsdecode(name)).is_relative_to(partial):
            raise _failed(path, error) from error
        raise InputError(f"{os.fsdecode(name)}: {error.strerror}: check the path and your permissions.") from error


def replace_folder(new: Path, path: Path) -> None:
    """Rename folder `new` to `path`, removing what stood there."""
    new.chmod(0o755)  # mkdtemp makes it private
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old-", dir=path.parent))
        os.rename(path, old / path.name)
        os.rename(new, path)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(new, path)


def sweep(path: Path) -> None:
    """Remove the temporary folders and files that killed writers of `path` left beside it."""
    name = glob.escape(path.name)
    for leftover in [*path.parent.glob(f".{name}.partial-*"), *path.parent.glob(f".{name}.old-*")]:
        shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file aside and rename it."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):  # a path below a file cannot even be looked up
            partial.unlink(missing_ok=True)
        raise _failed(path, error) from error


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON with a stable key order of its own, atomically."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path | str) -> Any:
    """Read a JSON file; InputError names the file when it is missing or broken."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: run the stage that writes it first.") from error
    except (OSError, ValueError, RecursionError) as error:  # also of integers too long and lists too deep to read
        raise InputError(f"{path} is not readable JSON ({error}): delete it and run its stage again.") from error


def sha256_file(path: Path | str) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: Any) -> str:
    state = hashlib.sha256()
    while block := file.read(1 << 20):
        state.update(block)
    return state.hexdigest()


def hash_json(value: Any) -> str:
    """Hex SHA-256 of a JSON value with sorted keys: equal configs have equal hashes."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
