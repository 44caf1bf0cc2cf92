"""Rows of CSV and Parquet files as they stand, with the bad ones marked and not repaired."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from uqabench.data.rejections import REASONS
from uqabench.data.sources.columns import holds, read_column, short
from uqabench.data.sources.delimited import default_quoting, read_header, read_records, read_text
from uqabench.errors import InputError

_PARQUET = (".parquet", ".pq")
_TABBED = (".tsv", ".tsv.gz", ".inter", ".item")  # the last two are RecBole's atomic files
SUFFIXES = (".csv", ".csv.gz", *_TABBED, *_PARQUET)

MALFORMED, NOT_UTF8 = REASONS.index("malformed row"), REASONS.index("not UTF-8")


@dataclass
class Rows:
    """Some columns of one file.

    columns: name asked for -> its values (large_string where the file has text, else the file's type). numbers: int64
    (n,), the record number of each row, 1 for the first after the header (blank lines do not count). lines: int64 (n,),
    the lines that each row takes in the file. reasons: int8 (n,), index into REASONS, -1 while the row is good.
    malformed, malformed_lines: the numbers and lines of CSV records with too many or too few fields.
    """

    columns: dict[str, pa.Array]
    numbers: np.ndarray
    lines: np.ndarray
    reasons: np.ndarray
    malformed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    malformed_lines: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def reject(self, mask: np.ndarray, reason: int) -> None:
        """Mark rows that no earlier check has rejected."""
        self.reasons[mask & (self.reasons < 0)] = reason

    def reject_broken(self, names: Iterable[str]) -> None:
        """Mark rows as malformed where a text of these columns holds a line break: a quote was left open there."""
        for name in names:
            column = self.columns.get(name)
            if column is None or not pa.types.is_large_string(column.type):
                continue
            if holds(column, b"\r") or holds(column, b"\n"):
                breaks = pc.count_substring_regex(column, r"\r\n|\r|\n").fill_null(0).to_numpy(zero_copy_only=False)
                self.lines = np.maximum(self.lines, 1 + breaks)
                self.reject(breaks > 0, MALFORMED)

    def rejected(self) -> Rejected:
        """All bad rows in file order."""
        bad = np.flatnonzero(self.reasons >= 0)
        numbers = np.r_[self.malformed, self.numbers[bad]]
        order = np.argsort(numbers, kind="stable")
        return Rejected(
            numbers[order],
            np.r_[np.full(len(self.malformed), MALFORMED), self.reasons[bad]][order],
            np.r_[self.malformed_lines, self.lines[bad]][order],
            np.r_[np.full(len(self.malformed), -1), bad][order],
        )


@dataclass(frozen=True)
class Rejected:
    """Bad rows of one file: record numbers, indices into REASONS, lines taken, and place among the rows (-1: none)."""

    numbers: np.ndarray
    reasons: np.ndarray
    lines: np.ndarray
    places: np.ndarray


@dataclass(frozen=True)
class Files:
    """files: what is read, in the order of the paths. skipped: {file in a folder that is not read: why}."""

    files: list[Path]
    skipped: dict[Path, str]

    def note(self, what: str) -> str | None:
        """One sentence on what was read and left out; None for one file."""
        if not self.skipped and len(self.files) == 1:
            return None
        names = [short(path.name) for path in self.files]
        text = (
            f"{what}: read {names[0]}"
            if len(names) == 1
            else f"{what}: read {len(names)} files, {names[0]} to {names[-1]}"
        )
        if self.skipped:
            few = ", ".join(f"{short(path.name)} ({why})" for path, why in islice(self.skipped.items(), 3))
            text += f"; left out {len(self.skipped)}: {few}{', …' if len(self.skipped) > 3 else ''}"
        return f"{text}."


def list_files(paths: Path | str | Iterable[Path | str], what: str) -> Files:
    """The files meant by a path, a folder (all tables below it) or several of them, in the order of their paths.

    Of a folder, hidden files and folders, those beginning with an underscore (where Spark and Hadoop write what is not
    finished) and files without a byte are left out.
    """
    several = [paths] if isinstance(paths, str | Path) else paths
    if not isinstance(several, Iterable) or not all(isinstance(path, str | Path) for path in several):
        raise InputError(f"{what} is {short(repr(paths))} and should be a path or a list of paths.")
    given = [Path(path) for path in several]
    files: list[Path] = []
    skipped: dict[Path, str] = {}
    for path in given:
        if os.path.isdir(path):
            tables = [file for file in sorted(path.rglob("*")) if file.is_file() and _is_table(file)]
            left_out = {file: why for file in tables if (why := _why_skipped(file, path)) is not None}
            if len(left_out) == len(tables):
                why = f"only such as are {' or '.join(sorted(set(left_out.values())))}" if left_out else "none"
                raise InputError(
                    f"{path} holds no {what} file ({why}): put one there that ends in {', '.join(SUFFIXES)}."
                )
            files += [file for file in tables if file not in left_out]
            skipped |= left_out
        elif not os.path.isfile(path):
            raise InputError(f"The {what} file {path} does not exist: name a {', '.join(SUFFIXES)} file or a folder.")
        elif not _is_table(path):
            raise InputError(f"The {what} file {path} is of unknown kind: it should end in {', '.join(SUFFIXES)}.")
        else:
            files.append(path)
    if not files:
        raise InputError(f"No {what} file is given: name one that ends in {', '.join(SUFFIXES)}.")
    unique = {file.resolve(): file for file in reversed(files)}
    return Files(sorted(unique.values(), key=lambda path: path.as_posix()), skipped)


def _is_table(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def _why_skipped(file: Path, folder: Path) -> str | None:
    for part in file.relative_to(folder).parts:
        if part.startswith("."):
            return "hidden"
        if part.startswith("_") and "=" not in part:  # `_day=3` is a partition
            return "unfinished"
    return "empty" if file.stat().st_size == 0 else None


def read_rows(
    path: Path, mapping: Mapping[str, str], optional: frozenset[str], encoding: str, quoting: str | None = None
) -> Rows:
    """Read the mapped columns ({name asked for: name in the file}) of one file.

    A column named in `optional` may be absent and is then left out. `quoting` is how text files quote: "none",
    "double" or "backslash" (`default_quoting` decides without it). Raises InputError naming the file and a missing
    column, with the nearest that there are, or a file that is corrupted, truncated or of another encoding.
    """
    with guarded(path):
        if path.name.lower().endswith(_PARQUET):
            return _read_parquet(path, mapping, optional)
        return _read_delimited(path, mapping, optional, encoding, quoting)


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Within the block, what a library says of a file it cannot read becomes one sentence (InputError)."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, UnicodeError, zlib.error) as error:
        # What a library says may hold a row of the log, so only the system's own words are passed on.
        reason = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise InputError(
            f"{path} cannot be read{reason}: it may be truncated or of another format or encoding."
        ) from error


def _read_parquet(path: Path, mapping: Mapping[str, str], optional: frozenset[str]) -> Rows:
    # Opened as one file: a reader of data sets would take `day=2024-05-01` in the path for a column.
    with pa.parquet.ParquetFile(path) as file:
        present = present_columns(path, file.schema_arrow.names, mapping, optional)
        table = file.read(columns=list(dict.fromkeys(present.values())))
    places = {column: table.column_names.index(column) for column in present.values()}
    ones = np.ones(len(table), np.int64)
    rows = Rows({}, np.arange(1, len(table) + 1), ones, np.full(len(table), -1, np.int8))
    add_columns(rows, {name: table.column(places[column]) for name, column in present.items()}, path, present, None)
    return rows


def _read_delimited(
    path: Path, mapping: Mapping[str, str], optional: frozenset[str], encoding: str, quoting: str | None
) -> Rows:
    delimiter = "\t" if path.name.lower().endswith(_TABBED) else ","
    text = read_text(path, encoding)
    quoting = quoting or default_quoting(text, delimiter)
    header, body = read_header(text, delimiter, quoting)
    if not header:
        raise InputError(f"{path} is empty: it should begin with a line of column names.")
    present = present_columns(path, header, mapping, optional)
    places = {column: header.index(column) for column in present.values()}
    found = read_records(body, delimiter, quoting, len(header), sorted(set(places.values())))
    rows = Rows(
        {}, found.numbers, found.lines, np.full(len(found.table), -1, np.int8), found.malformed, found.malformed_lines
    )
    columns = {name: found.table.column(str(places[column])) for name, column in present.items()}
    add_columns(rows, columns, path, present, text.not_utf8)
    return rows


def add_columns(
    rows: Rows, columns: dict[str, pa.ChunkedArray], path: Path, present: dict[str, str], not_utf8: str | None
) -> None:
    """Put columns into `rows` as `read_column` gives them; `present`: their names in the file."""
    for name, column in columns.items():
        rows.columns[name], bad = read_column(column, f"{path}: column '{short(present[name])}'", not_utf8)
        rows.reject(bad, NOT_UTF8)


def present_columns(
    path: Path, header: list[str], mapping: Mapping[str, str], optional: frozenset[str]
) -> dict[str, str]:
    """The entries of `mapping` whose columns the header has; InputError for one that is not optional."""
    return {name: column for name, column in mapping.items() if _has(path, header, column, name in optional)}


def _has(path: Path, header: list[str], column: str, may_lack: bool) -> bool:
    if column in header:
        if header.count(column) > 1:
            raise InputError(f"{path} has {header.count(column)} columns called '{short(column)}': rename all but one.")
        return True
    if may_lack:
        return False
    if any(_is_value(name) for name in header):
        raise InputError(
            f"{path} has no column '{short(column)}', and its first line holds values where names should stand: "
            "add a line of column names."
        )
    few = header if len(header) <= 5 else _nearest(column, header)
    which = "those there are" if len(header) <= 5 else f"its {len(header):,}, such as"
    raise InputError(
        f"{path} has no column '{short(column)}': map one of {which} ({', '.join(short(name, 40) for name in few)})."
    )


def _nearest(column: str, header: list[str]) -> list[str]:
    same = [name for name in header if name.casefold() == column.casefold()]
    return [*same, *get_close_matches(column, header[:20_000], 5, 0.4), *header][:5]


def _is_value(name: str) -> bool:
    """Whether a column's name reads like a number, a date or an address: then it is a row, which no message quotes."""
    return "@" in name or bool(name) and not any(character.isalpha() for character in name)
