"""Tables with one object a line: JSON, or the Python literals in which some older logs are distributed."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json
from pydantic_core import from_json

from uqabench.data.rejections import REASONS
from uqabench.data.sources.columns import as_text
from uqabench.data.sources.packed import packed_blocks
from uqabench.data.sources.readers import Rows, add_columns
from uqabench.errors import InputError

KINDS = ("json", "python")
_BLOCK = 8 * 2**20
_LONGEST = 2**24  # bytes of one line
_SAMPLE = 100
_MALFORMED = REASONS.index("malformed row")

Change = Callable[[list[Any]], list[Any]]


def read_lines(path: Path, kind: str, mapping: Mapping[str, str], changes: Mapping[str, Change]) -> Rows:
    """The mapped fields ({name asked for: key of the objects}) of every line.

    changes: by name asked for, from a field's values to the texts that stand for them. A line that is no object of
    `kind`, or longer than 16 MiB, is malformed; an object without a key lacks the value. InputError where no object of
    the file has a required key is left to the caller: absent fields are columns of nulls.
    """
    parse = _PARSERS[kind]
    keys = dict.fromkeys(mapping.values())
    parts: list[dict[str, pa.Array]] = []
    numbers: list[np.ndarray] = []
    malformed: list[int] = []
    kinds: dict[str, pa.DataType] | None = None
    first = 1
    for block in _blocks(path):
        lines = [line for line in block.split(b"\n") if line.strip()]
        if kinds is None and kind == "json":
            kinds = _kinds([row for line in lines[:_SAMPLE] if (row := parse(line)) is not None], keys)
        table = _fast(block, kinds, lines) if kinds else None
        if table is None:
            rows = [parse(line) for line in lines]
            good = np.array([row is not None for row in rows], bool)
            found = [row for row in rows if row is not None]
            columns = {key: [row.get(key) for row in found] for key in keys}
        else:
            good = np.ones(len(lines), bool)
            columns = {key: table.column(key) for key in keys}
        parts.append({name: _column(columns[key], changes.get(name)) for name, key in mapping.items()})
        numbers.append(first + np.flatnonzero(good))
        malformed += (first + np.flatnonzero(~good)).tolist()
        first += len(lines)
    return _assembled(path, mapping, parts, numbers, malformed)


def _assembled(
    path: Path, mapping: Mapping[str, str], parts: list[dict[str, pa.Array]], numbers: list[np.ndarray], bad: list[int]
) -> Rows:
    rows_of = np.concatenate([np.zeros(0, np.int64), *numbers])
    ones = np.ones(len(rows_of), np.int64)
    rows = Rows(
        {}, rows_of, ones, np.full(len(rows_of), -1, np.int8), np.array(bad, np.int64), np.ones(len(bad), np.int64)
    )
    columns = {name: _chunked([part[name] for part in parts]) for name in mapping}
    add_columns(rows, columns, path, dict(mapping), None)
    return rows


def _blocks(path: Path) -> Iterator[bytes]:
    """Whole lines of some MiB; InputError where a line has no end within the limit."""
    rest = b""
    for block in packed_blocks(path) if path.name.lower().endswith(".gz") else _plain_blocks(path):
        rest += block
        if len(rest) < _BLOCK:
            continue
        end = rest.rfind(b"\n")
        if end >= 0:
            yield rest[: end + 1]
            rest = rest[end + 1 :]
        elif len(rest) > _LONGEST:
            raise InputError(
                f"{path} has a line of more than {_LONGEST >> 20} MiB: it is no table of one object a line."
            )
    if rest.strip():
        yield rest


def _plain_blocks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _json(line: bytes) -> dict[str, Any] | None:
    try:
        row = from_json(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _python(line: bytes) -> dict[str, Any] | None:
    """Literals alone: nothing is run."""
    if len(line) > 2**20:
        return None
    try:
        with warnings.catch_warnings():  # of escapes in the data
            warnings.simplefilter("ignore")
            row = ast.literal_eval(line.decode().strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


_PARSERS = {"json": _json, "python": _python}


def _kinds(rows: list[dict[str, Any]], keys: Mapping[str, None]) -> dict[str, pa.DataType] | None:
    """The Arrow type of each key by a sample; None where one has several."""
    found = {}
    for key in keys:
        values = [row[key] for row in rows if row.get(key) is not None]
        kinds = {type(value) for value in values}
        if not kinds or kinds == {str}:
            found[key] = pa.string()
        elif kinds == {int} and max(map(abs, values)) < 2**62:
            found[key] = pa.int64()
        elif kinds <= {int, float}:
            found[key] = pa.float64()
        elif kinds == {list} and all(isinstance(entry, str) for value in values for entry in value):
            found[key] = pa.list_(pa.string())
        else:
            return None
    return found


def _fast(block: bytes, kinds: dict[str, pa.DataType], lines: list[bytes]) -> pa.Table | None:
    """Arrow's own reader: many times as fast, but it takes all lines of the block or none."""
    # A line `null` ends the process in Arrow's reader where it is the first, and is an empty object to it elsewhere.
    if not all(line.lstrip().startswith(b"{") for line in lines):
        return None
    schema = pa.schema(list(kinds.items()))
    try:
        table = pa.json.read_json(
            pa.BufferReader(block),
            read_options=pa.json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
        table.validate(full=True)
    except pa.ArrowException:
        return None
    return table if len(table) == len(lines) else None


def _column(values: Any, change: Change | None) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        if change is None and not pa.types.is_list(values.type):
            return values.combine_chunks()
        values = values.to_pylist()
    values = [_scalar(value) for value in (values if change is None else change(values))]
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int} and all(value is None or abs(value) < 2**62 for value in values):
        return pa.array(values, pa.int64())
    if kinds and kinds <= {int, float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([None if value is None else _encodable(str(value)) for value in values], pa.large_string())


def _scalar(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > 62:
        return str(value) if value.bit_length() < 1000 else None
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else None


def _encodable(text: str) -> str:
    """JSON may spell halves of characters, which no encoding can write."""
    return text.encode("utf-8", "replace").decode()


def _chunked(parts: list[pa.Array]) -> pa.ChunkedArray:
    if len({part.type for part in parts}) > 1:
        parts = [as_text(part) for part in parts]
    return pa.chunked_array(parts) if parts else pa.chunked_array([pa.array([], pa.large_string())])
