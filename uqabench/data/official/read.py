"""Reads the published Arrow files block by block, from mapped memory, and sorts out the rows that are no sequence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from uqabench.data.official.layout import FEATURES, ITEM, LISTS, MAX_ID, MAX_ITEMS, TEXT, TOKEN_COLUMNS, TOKENS
from uqabench.data.official.ragged import Lists
from uqabench.data.rejections import REASONS, Rejections
from uqabench.errors import InputError

_ROWS = 1024
_MALFORMED, _UNEQUAL = REASONS.index("malformed row"), REASONS.index("lists of unequal length")
_RANGE = REASONS.index("id out of range")
_TOKENS = frozenset(TOKEN_COLUMNS.values())


@dataclass(frozen=True)
class Block:
    """The good rows of a part of a file.

    rows: int64 (n,), their numbers in the file from 0. offsets: int64 (n + 1,), row i's interactions are
    offsets[i]:offsets[i + 1]. features: column -> the list of ids of each interaction. texts: of the column `text`.
    size: rows that the part has, bad ones included.
    """

    rows: np.ndarray
    offsets: np.ndarray
    features: dict[str, Lists]
    texts: list[str]
    size: int

    def without_features(self) -> Block:
        """The same without what points into the mapped file."""
        return replace(self, features={}, texts=[])

    def select(self, keep: np.ndarray) -> Block:
        """The rows under a boolean mask."""
        lengths = np.diff(self.offsets)
        inside = np.flatnonzero(np.repeat(keep, lengths))
        offsets = np.zeros(int(keep.sum()) + 1, np.int64)
        np.cumsum(lengths[keep], out=offsets[1:])
        features = {name: lists.take(inside) for name, lists in self.features.items()}
        texts = [text for text, kept in zip(self.texts, keep.tolist(), strict=True) if kept]
        return Block(self.rows[keep], offsets, features, texts, self.size)


def open_reader(path: Path, with_text: bool) -> pa.ipc.RecordBatchFileReader:
    """The mapped file; InputError where it is missing, no Arrow file, or lacks a column or has it of another type."""
    if not path.is_file():
        raise InputError(f"{path} is missing: name the folder that holds the four published Arrow files.")
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        schema, names = reader.schema, reader.schema.names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no Arrow file, or a truncated one: download it again.") from error
    for name in (*FEATURES, *([TEXT] if with_text else [])):
        if (count := names.count(name)) != 1:
            raise InputError(f"{path} has {count} columns '{name}' and needs one: download it again.")
        found = schema.field(name).type
        fits = found in (pa.string(), pa.large_string()) if name == TEXT else _is_lists(found)
        if not fits:
            wanted = "string" if name == TEXT else LISTS
            raise InputError(f"{path}: column '{name}' holds {str(found)[:80]} and should hold {wanted}.")
    return reader


def _is_lists(kind: pa.DataType) -> bool:
    """Whatever the inner fields are called; large lists hold the same."""
    for _ in range(2):
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            return False
        kind = kind.value_type
    return kind == pa.int64()


def _batches(reader: pa.ipc.RecordBatchFileReader, path: Path) -> Iterator[pa.RecordBatch]:
    for index in range(reader.num_record_batches):
        try:
            batch = reader.get_batch(index)
            batch.validate(full=True)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: record batch {index} is damaged: download the file again.") from error
        yield batch


def read_blocks(path: Path, rejections: Rejections, *, with_text: bool = False) -> Iterator[Block]:
    """The good rows in file order; bad ones go to `rejections` (row 1 is the first)."""
    reader = open_reader(path, with_text)
    before = 0
    for batch in _batches(reader, path):
        for start in range(0, batch.num_rows, _ROWS):
            part = batch.slice(start, _ROWS)
            yield _block(part, before + start, path.name, rejections, with_text)
        before += batch.num_rows


def _block(part: pa.RecordBatch, first: int, file: str, rejections: Rejections, with_text: bool) -> Block:
    columns = {name: _Column(part.column(name)) for name in FEATURES}
    reasons = np.full(part.num_rows, -1, np.int8)

    def reject(mask: np.ndarray, reason: int) -> None:
        reasons[mask & (reasons < 0)] = reason

    lengths = columns[ITEM].lengths
    for name, column in columns.items():
        reject(column.null | (column.lengths > MAX_ITEMS), _MALFORMED)
        reject(column.lengths != lengths, _UNEQUAL)
        reject(column.rows_with(column.limits_broken(TOKENS - 1 if name in _TOKENS else MAX_ID)), _RANGE)
        if name not in _TOKENS:
            sizes = column.lists.lengths
            reject(column.rows_of(sizes > 1) | (column.rows_of(sizes < 1) if name == ITEM else False), _MALFORMED)
    texts = part.column(TEXT).to_pylist() if with_text else []
    if with_text:
        reject(np.array([text is None for text in texts], bool), _MALFORMED)
    bad = np.flatnonzero(reasons >= 0)
    if len(bad):
        rejections.add(file, first + bad + 1, reasons[bad])
    rows = np.flatnonzero(reasons < 0)
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths[rows], out=offsets[1:])
    features = {name: column.of(reasons < 0) for name, column in columns.items()}
    return Block(first + rows, offsets, features, [texts[row] for row in rows] if with_text else [], part.num_rows)


class _Column:
    """One feature column of a block: which lists each row has, and what is null in it."""

    def __init__(self, column: pa.Array) -> None:
        self.offsets = column.offsets.to_numpy().astype(np.int64)
        base, end = (int(self.offsets[0]), int(self.offsets[-1])) if len(column) else (0, 0)
        inner = column.values.slice(base, end - base)
        self.offsets = self.offsets - base
        self.lengths = np.diff(self.offsets)
        edges = inner.offsets.to_numpy().astype(np.int64) if len(inner) else np.zeros(1, np.int64)
        low = int(edges[0])
        values = inner.values.slice(low, int(edges[-1]) - low)
        self.null = column.is_null().to_numpy(zero_copy_only=False).copy()
        if inner.null_count:
            self.null |= self.rows_of(inner.is_null().to_numpy(zero_copy_only=False))
        edges = edges - low
        if values.null_count:
            self.lists = Lists(edges[:-1], edges[1:], np.zeros(len(values), np.int64))
            self.null |= self.rows_with(values.is_null().to_numpy(zero_copy_only=False))
            values = values.fill_null(0)
        self.lists = Lists(edges[:-1], edges[1:], values.to_numpy(zero_copy_only=False))

    def rows_of(self, mask: np.ndarray) -> np.ndarray:
        """bool: rows with a list at which `mask` is True."""
        found = np.zeros(len(self.lengths), bool)
        found[np.searchsorted(self.offsets, np.flatnonzero(mask), side="right") - 1] = True
        return found

    def rows_with(self, mask: np.ndarray) -> np.ndarray:
        """bool: rows with an id at which `mask` is True."""
        lists = np.zeros(len(self.lists.starts), bool)
        places = np.flatnonzero(mask)
        if len(places):
            lists[np.searchsorted(self.lists.starts, places, side="right") - 1] = True
        return self.rows_of(lists)

    def limits_broken(self, largest: int) -> np.ndarray:
        return (self.lists.ids < 0) | (self.lists.ids > largest)

    def of(self, good: np.ndarray) -> Lists:
        """The lists of the good rows."""
        if good.all():
            return self.lists
        return self.lists.take(np.flatnonzero(np.repeat(good, self.lengths)))
