"""Rows of CSV and Parquet files as they stand, with the bad ones marked and not repaired."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from uqabench.data.log import one_chunk
from uqabench.data.rejections import REASONS
from uqabench.errors import InputError

_PARQUET = (".parquet", ".pq")
_TABBED = (".tsv", ".tsv.gz", ".inter", ".item")  # the last two are RecBole's atomic files
SUFFIXES = (".csv", ".csv.gz", *_TABBED, *_PARQUET)

MALFORMED, NOT_UTF8 = REASONS.index("malformed row"), REASONS.index("not UTF-8")


@dataclass
class Rows:
    """Some columns of one file.

    columns: name asked for -> its values (string where the file has text, else the file's type). numbers: int64 (n,),
    the record number of each row, 1 for the first after the header (blank lines do not count). reasons: int8 (n,),
    index into REASONS, -1 while the row is good. malformed: record numbers of CSV rows with too many or few fields.
    """

    columns: dict[str, pa.Array]
    numbers: np.ndarray
    reasons: np.ndarray
    malformed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def reject(self, mask: np.ndarray, reason: int) -> None:
        """Mark rows that no earlier check has rejected."""
        self.reasons[mask & (self.reasons < 0)] = reason

    def rejected(self) -> tuple[np.ndarray, np.ndarray]:
        """(record numbers, reasons) of all bad rows, in file order."""
        bad = self.reasons >= 0
        numbers = np.r_[self.malformed, self.numbers[bad]]
        reasons = np.r_[np.full(len(self.malformed), MALFORMED), self.reasons[bad]]
        order = np.argsort(numbers, kind="stable")
        return numbers[order], reasons[order]


def list_files(paths: Path | str | Iterable[Path | str], what: str) -> list[Path]:
    """The files meant by a path, a folder (all tables below it) or several of them, in the order of their paths."""
    given = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    files: list[Path] = []
    for path in given:
        if path.is_dir():
            found = [file for file in path.rglob("*") if file.is_file() and file.name.endswith(SUFFIXES)]
            if not found:
                raise InputError(f"{path} holds no {what} file: put one there that ends in {', '.join(SUFFIXES)}.")
            files += found
        elif not path.is_file():
            raise InputError(f"The {what} file {path} does not exist: name a {', '.join(SUFFIXES)} file or a folder.")
        elif not path.name.endswith(SUFFIXES):
            raise InputError(f"The {what} file {path} is of unknown kind: it should end in {', '.join(SUFFIXES)}.")
        else:
            files.append(path)
    if not files:
        raise InputError(f"No {what} file is given: name one that ends in {', '.join(SUFFIXES)}.")
    return sorted(set(files), key=lambda path: path.as_posix())


def read_rows(path: Path, mapping: Mapping[str, str], optional: frozenset[str], encoding: str) -> Rows:
    """Read the mapped columns ({name asked for: name in the file}) of one file.

    A column named in `optional` may be absent and is then left out. Raises InputError naming the file and a missing
    column, with the columns that there are, or a file that is corrupted, truncated or of another encoding.
    """
    is_parquet = path.name.endswith(_PARQUET)
    try:
        header = pa.parquet.read_schema(path).names if is_parquet else _csv_header(path, encoding)
        present = {name: column for name, column in mapping.items() if _has(path, header, column, name in optional)}
        wanted = list(dict.fromkeys(present.values()))
        if is_parquet:
            table, malformed = pa.parquet.read_table(path, columns=wanted), np.zeros(0, np.int64)
        else:
            table, malformed = _read_csv(path, wanted, encoding)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, EOFError, UnicodeError, LookupError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"{path} cannot be read ({reason}): it may be truncated or of another format or encoding."
        ) from error
    numbers = np.delete(np.arange(1, len(table) + len(malformed) + 1), malformed - 1)
    rows = Rows({}, numbers, np.full(len(table), -1, np.int8), malformed)
    texts = {column: _text(path, column, table[column]) for column in wanted}
    for _, bad in texts.values():
        rows.reject(bad, NOT_UTF8)
    rows.columns = {name: texts[column][0] for name, column in present.items()}
    return rows


def _has(path: Path, header: list[str], column: str, may_lack: bool) -> bool:
    if column in header:
        if header.count(column) > 1:
            raise InputError(f"{path} has {header.count(column)} columns called '{column}': rename all but one.")
        return True
    if may_lack:
        return False
    raise InputError(f"{path} has no column '{column}': map one of those there are ({', '.join(header)}).")


def _csv_options(path: Path, encoding: str) -> tuple[pa.csv.ReadOptions, pa.csv.ParseOptions]:
    """One thread, because Arrow numbers bad rows only then."""
    delimiter = "\t" if path.name.endswith(_TABBED) else ","
    return (
        pa.csv.ReadOptions(use_threads=False, encoding=encoding),
        pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
    )


def _csv_header(path: Path, encoding: str) -> list[str]:
    read, parse = _csv_options(path, encoding)
    parse.invalid_row_handler = lambda row: "skip"
    with pa.csv.open_csv(path, read_options=read, parse_options=parse) as reader:
        return reader.schema.names


def _read_csv(path: Path, columns: list[str], encoding: str) -> tuple[pa.Table, np.ndarray]:
    read, parse = _csv_options(path, encoding)
    malformed: list[int] = []

    def skip(row: pa.csv.InvalidRow) -> str:
        malformed.append(row.number - 1)  # Arrow counts the header as row 1
        return "skip"

    parse.invalid_row_handler = skip
    convert = pa.csv.ConvertOptions(include_columns=columns, column_types={name: pa.binary() for name in columns})
    table = pa.csv.read_csv(path, read_options=read, parse_options=parse, convert_options=convert)
    return table, np.array(malformed, np.int64)


def _text(path: Path, name: str, chunked: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """(column, bool mask of values that are not UTF-8); text is trimmed and empty text is null."""
    if pa.types.is_dictionary(chunked.type):
        chunked = chunked.cast(chunked.type.value_type)
    if pa.types.is_nested(chunked.type):
        raise InputError(f"{path}: column '{name}' holds {chunked.type} and should hold one value a row.")
    if not _is_text(chunked.type):
        return one_chunk(chunked), np.zeros(len(chunked), bool)
    # A Parquet file can call any bytes a string, so both kinds are checked as bytes; large ones, because the strings
    # of one column may exceed the 2 GiB that the small kind can address.
    text, bad = tolerant(one_chunk(chunked.cast(pa.large_binary())), lambda values: values.cast(pa.large_string()))
    text = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.large_string()), text), bad


def _is_text(kind: pa.DataType) -> bool:
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(check(kind) for check in checks)


def as_ids(column: pa.Array) -> pa.Array:
    """Values as large_string; whole floating-point numbers, which a column of integers with gaps becomes, lose '.0'."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        if pc.all(pc.equal(pc.trunc(column), column), min_count=0).as_py() and _below(column, 2.0**63):
            column = column.cast(pa.int64())
    return column.cast(pa.large_string())


def _below(column: pa.Array, bound: float) -> bool:
    return (pc.max(pc.abs(column)).as_py() or 0.0) < bound


def tolerant(column: pa.Array, convert: Callable[[pa.Array], pa.Array]) -> tuple[pa.Array, np.ndarray]:
    """(converted column with nulls where `convert` fails, bool mask of the failures).

    `convert` raises on a whole array, so the failing values are found by halving: n good values cost one call, each
    bad one about log2(n) more.
    """
    try:
        return convert(column), np.zeros(len(column), bool)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        if len(column) == 1:
            return pa.nulls(1, convert(column[:0]).type), np.ones(1, bool)
    half = len(column) // 2
    parts = [tolerant(column[:half], convert), tolerant(column[half:], convert)]
    return pa.concat_arrays([values for values, _ in parts]), np.concatenate([bad for _, bad in parts])
