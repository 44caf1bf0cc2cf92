"""Arrays as a page carries them: packed one after another behind a JSON header, compressed, and written in base64.

Fifty thousand questions and fifteen methods' answers as JSON numbers would be some twenty megabytes and a second of
parsing; packed they are a view on a buffer.
"""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import numpy as np

_ALIGNMENT = 8
_TYPES = {"u1": "Uint8Array", "u2": "Uint16Array", "u4": "Uint32Array", "f4": "Float32Array"}
_LEVEL = 6  # of gzip: level 9 takes three times as long and saves two per cent


class Columns:
    """Collects arrays; the page's JSON refers to them by what `add` returns."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, values: np.ndarray) -> dict[str, Any]:
        """Keep an array of any shape: whole numbers from 0 in the smallest type that holds them, others as float32."""
        values = np.ascontiguousarray(values)
        if values.dtype.kind == "f":
            values = values.astype("<f4")
        else:
            values = values.astype(f"<{_smallest(int(values.max(initial=0)))}")
        start, data = self._size, values.tobytes()
        self._parts += [data, b"\0" * (-len(data) % _ALIGNMENT)]
        self._size += len(data) + len(self._parts[-1])
        return {"type": _TYPES[values.dtype.str[1:]], "at": start, "length": int(values.size)}

    def packed(self, header: dict[str, Any]) -> str:
        """Header and arrays as base64 of gzip: the header's length in bytes (uint64), its JSON, and the arrays."""
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        data = b"".join([np.uint64(len(text)).tobytes(), text, *self._parts])
        return base64.b64encode(gzip.compress(data, _LEVEL, mtime=0)).decode()


class Texts:
    """Distinct texts by number: questions and options repeat, and a page need hold each but once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    def all(self) -> list[str]:
        return list(self._numbers)


def _smallest(largest: int) -> str:
    return "u1" if largest < 2**8 else "u2" if largest < 2**16 else "u4"
