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
        self._protocols: dict[str, str] = {}

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
        return any(str(file).startswith(folder) for file in files for folder in self._protocols)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Within the block, an InputError about a copy names its URL."""
        try:
            yield
        except InputError as error:
            text = str(error)
            for folder, protocol in self._protocols.items():
                text = text.replace(folder, protocol)
            if text == str(error):
                raise
            raise InputError(text) from error

    def _fetch(self, url: str, what: str, suffixes: Sequence[str]) -> Path:
        protocol = url.partition(_MARK)[0]
        system, root = _system(url, what)
        if protocol in _HERE:
            return Path(root)
        folder = self._folder_of(protocol)
        try:
            found = [root] if system.isfile(root) else system.find(root)
            copies = {name: folder / _key(name) for name in found if name.lower().endswith(tuple(suffixes))}
            if not copies:
                raise InputError(f"{url} holds no {what} file: name one that ends in {', '.join(suffixes)}.")
            if any(part in (".", "..") for name in copies for part in name.split("/")):
                raise InputError(f"{url} holds an object with '..' in its name: rename it.")
            for copy in copies.values():
                copy.parent.mkdir(parents=True, exist_ok=True)
            system.get(list(copies), [str(copy) for copy in copies.values()])
        except InputError:
            raise
        except Exception as error:  # a file system of another package may raise anything
            raise InputError(f"The {what} {short(url, 200)} cannot be fetched: {reason(error)}.") from error
        return folder / _key(root)

    def _folder_of(self, protocol: str) -> Path:
        """Where copies lie: the parts of a URL are folders there, so that a log is called as it is in the store."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="uqabench-")
        folder = Path(self._folder.name).resolve() / protocol.replace("/", "-")
        self._protocols[f"{folder}/"] = f"{protocol}{_MARK}"
        return folder


def _key(name: str) -> str:
    """An object's name as a relative path."""
    return name.rpartition(_MARK)[2].strip("/")


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
