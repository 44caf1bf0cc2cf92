"""Files of an object store (`s3://bucket/folder`, or whatever fsspec has a file system for), fetched to be read.

A file is read once for its digest and once for its rows, and text has to be seen whole to tell how it is written, so
that every byte is needed on this machine. Each object travels once, into a temporary folder laid out as the store is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uqabench.data.sources.columns import short
from uqabench.errors import InputError
from uqabench.registry import reason

_MARK = "://"
_HERE = ("file", "local")
_EXTRA = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
"""The package that fsspec needs for a protocol."""


class Fetched:
    """Local copies of what URLs name, for as long as this object lives; paths of this machine are passed through."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory | None = None
        self._urls: dict[str, str] = {}

    def local(self, paths: Any, what: str, suffixes: Sequence[str]) -> Any:
        """`paths` (one or several) with a local copy in place of each URL.

        Of a folder, the files that end in one of `suffixes` are fetched. Raises InputError for a URL that nothing
        is at, that cannot be read, or whose protocol fsspec or a package it needs does not know.
        """
        if isinstance(paths, str) and _MARK in paths:
            return self._fetch(paths, what, suffixes)
        if isinstance(paths, Iterable) and not isinstance(paths, str):
            return [self.local(path, what, suffixes) if isinstance(path, str) else path for path in paths]
        return paths

    def any_of(self, files: Iterable[Path]) -> bool:
        """Whether one of these files is a copy."""
        return any(str(file).startswith(folder) for file in files for folder in self._urls)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Within the block, an InputError about a copy names its URL."""
        try:
            yield
        except InputError as error:
            text = str(error)
            for folder, url in self._urls.items():
                text = text.replace(folder, url)
            if text == str(error):
                raise
            raise InputError(text) from error

    def _fetch(self, url: str, what: str, suffixes: Sequence[str]) -> Path:
        system, root = _system(url, what)
        if url.partition(_MARK)[0] in _HERE:
            return Path(root)
        try:
            if system.isfile(root):
                objects, base = [root], root.rpartition("/")[0]
            else:
                base = root.rstrip("/")
                objects = [name for name in system.find(root) if name.lower().endswith(tuple(suffixes))]
                if not objects:
                    raise InputError(f"{url} holds no {what} file: name one that ends in {', '.join(suffixes)}.")
            if any(part in (".", "..") for name in objects for part in name.split("/")):
                raise InputError(f"{url} holds an object with '..' in its name: rename it.")
            folder = self._copy_of(url if base == root.rstrip("/") else url.rpartition("/")[0])
            copies = [folder / name.removeprefix(base).lstrip("/") for name in objects]
            for copy in copies:
                copy.parent.mkdir(parents=True, exist_ok=True)
            system.get(objects, [str(copy) for copy in copies])
        except InputError:
            raise
        except Exception as error:  # a file system of another package may raise anything
            raise InputError(f"The {what} {short(url, 200)} cannot be fetched: {reason(error)}.") from error
        return copies[0] if base != root.rstrip("/") else folder

    def _copy_of(self, url: str) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="uqabench-")
        folder = Path(self._folder.name).resolve() / f"{len(self._urls):04d}"
        folder.mkdir()
        self._urls[str(folder)] = url.rstrip("/")
        return folder


def _system(url: str, what: str) -> tuple[Any, str]:
    """(fsspec's file system of a URL, the path in it)."""
    protocol = url.partition(_MARK)[0]
    try:
        import fsspec
    except ImportError as error:
        raise InputError(f"{short(url, 200)} needs fsspec: run `pip install 'uqabench[remote]'`.") from error
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _EXTRA.get(protocol, f"a package for {short(protocol)}")
        raise InputError(f"{short(url, 200)} needs {package}: install it with pip.") from error
    except Exception as error:
        raise InputError(f"The {what} {short(url, 200)} cannot be opened: {reason(error)}.") from error
