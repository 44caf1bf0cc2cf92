"""Files packed by gzip, unpacked as far as a log may reasonably grow."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

from uqabench.errors import InputError

_BLOCK = 2**22
_FREE = 64 * 2**20  # bytes that a file of any size may unpack to
_RATIO = 200  # logs of text shrink by 3 to 30


def packed_blocks(path: Path) -> Iterator[bytes]:
    """The unpacked bytes, a few MiB at a time.

    Raises InputError where they are more than 200 times the file, which no log is; OSError, EOFError or zlib.error for
    a damaged file.
    """
    limit = _FREE + _RATIO * path.stat().st_size
    total = 0
    with gzip.open(path) as file:
        while block := file.read(_BLOCK):
            total += len(block)
            if total > limit:
                raise InputError(f"{path} unpacks to more than {_RATIO} times its size, which no log does: unpack it.")
            yield block
