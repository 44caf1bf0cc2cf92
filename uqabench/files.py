"""Writing aside and renaming, hashing, and reading JSON with errors a user can act on."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
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
    """Yield a temporary folder that takes the place of `path` on success and vanishes on failure.

    A link is followed: the folder that it points to is replaced. A folder cannot be exchanged in one step, so an old
    `path` is first renamed to `path.old-*`; a process killed between the two renames leaves the finished new folder
    and the old one beside each other, never a mixture. Where `path` must stay the folder that it is
    (`is_filled_in_place`), it is filled instead, its manifest last: a process killed while filling leaves a folder
    without a manifest, which no reader takes for finished.
    """
    named, path = Path(path), followed(Path(path))
    in_place = is_filled_in_place(path)
    try:
        if path.is_symlink() or path.exists() and not path.is_dir():
            code = errno.ELOOP if path.is_symlink() else errno.ENOTDIR
            raise OSError(code, os.strerror(code), str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path if in_place else path.parent))
        if path.is_dir() and not os.access(path, os.W_OK):
            partial.rmdir()
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    except OSError as error:
        raise _failed(named, error) from error
    try:
        yield partial
        fill_folder(partial, path) if in_place else replace_folder(partial, path)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, UQABenchError) or not (isinstance(error, OSError) or is_disk_full(error)):
            raise
        name = getattr(error, "filename", None)
        if name is None or is_disk_full(error) or Path(os.fsdecode(name)).is_relative_to(partial):
            raise _failed(named, error) from error
        raise InputError(f"{os.fsdecode(name)}: {error.strerror}: check the path and your permissions.") from error


def followed(path: Path) -> Path:
    """Where the path leads when all links are followed (`Path.resolve` raises on links that lead in a circle)."""
    return Path(os.path.realpath(path))


def is_filled_in_place(path: Path) -> bool:
    """Whether a new folder cannot take the place of `path`: a mount point, an empty folder that its owner made (its
    permissions are meant), or a folder whose parent may not be written to."""
    return os.path.isdir(path) and (_is_fixed(path) or not _entries(path))


def _is_fixed(path: Path) -> bool:
    return os.path.isdir(path) and (os.path.ismount(path) or not os.access(path.parent, os.W_OK))


def work_folder(path: Path) -> Path:
    """Where a long job that will write `path` keeps its checkpoints: beside it, or inside a mount point."""
    path = followed(path)
    return path / f".{path.name}.work" if _is_fixed(path) else path.with_name(f"{path.name}.work")


def _entries(path: Path) -> list[Path]:
    """What lies in a folder, but for what the file system put there itself and what writers of the folder keep."""
    marks = (f".{path.name}.partial-", f".{path.name}.old-", f".{path.name}.work")
    return [entry for entry in path.iterdir() if entry.name != "lost+found" and not entry.name.startswith(marks)]


def fill_folder(new: Path, path: Path) -> None:
    """Move all that `new`, a folder inside `path`, holds into `path`, removing what stood there; the manifest goes
    first and comes last."""
    (path / "manifest.json").unlink(missing_ok=True)
    for old in _entries(path):
        shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    for entry in sorted(new.iterdir(), key=lambda entry: entry.name == "manifest.json"):
        os.rename(entry, path / entry.name)
    new.rmdir()


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
    """Remove the temporary folders and files that killed writers of `path` left beside it or inside it."""
    path = followed(path)
    for folder in filter(os.path.isdir, (path.parent, path)):
        for kind in ("partial", "old"):
            for leftover in folder.glob(f".{glob.escape(path.name)}.{kind}-*"):
                shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def folder_files(folder: Path) -> list[str]:
    """Names of all files below `folder`, relative to it and with slashes, in sorted order."""
    found = [path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file aside and rename it."""
    write_aside(path, lambda partial: partial.write_bytes(data))


def write_aside(path: Path | str, write: Callable[[Path], Any]) -> None:
    """Have `write` make a file aside, and rename it."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        os.replace(partial, path)
    except BaseException as error:
        with suppress(OSError):  # a path below a file cannot even be looked up
            partial.unlink(missing_ok=True)
        if not (isinstance(error, OSError) or is_disk_full(error)):
            raise
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
