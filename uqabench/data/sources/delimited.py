"""Records of CSV and TSV files: found by Arrow's parser, with the account of malformed ones that it does not give."""

from __future__ import annotations

import codecs
import csv
import io
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from uqabench.data.sources.columns import short
from uqabench.data.sources.packed import packed_blocks
from uqabench.errors import InputError

QUOTINGS = ("none", "double", "backslash")

_BLOCK = 16 * 2**20
_LARGEST_BLOCK = 2**31 - 1
_HEADER_BYTES = 64 * 2**20  # more than the first line of any table
_NOT_CHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # Unicode will never give these a meaning
_NOT_TEXT = {"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape", "mbcs", "oem"}
_ESCAPED = re.compile(rb'\\([\\"])')
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Text:
    """The content of a text file as UTF-8. `not_utf8`: what stands for each byte that was none; None without any."""

    data: pa.Buffer
    not_utf8: str | None = None


@dataclass(frozen=True)
class Records:
    """What a file's lines below the header hold.

    table: the columns asked for, text by their place in the header ("0", "1", …). numbers: int64, the record number of
    each row of `table`, 1 for the first (blank lines do not count). lines: int64, how many lines each row took.
    malformed, malformed_lines: the same of records with too many or too few fields.
    """

    table: pa.Table
    numbers: np.ndarray
    lines: np.ndarray
    malformed: np.ndarray
    malformed_lines: np.ndarray


def check_encoding(name: str) -> None:
    """Raise InputError unless `name` is an encoding of text."""
    try:
        info = codecs.lookup(name)
        usable = info._is_text_encoding and info.incrementaldecoder is not None
        usable = usable and info.name.replace("_", "-") not in _NOT_TEXT
    except (LookupError, ValueError, TypeError, AttributeError):
        usable = False
    if not usable:
        raise InputError(
            f"encoding: {short(repr(name))} is no encoding of text: give one such as utf-8, latin-1 or gb18030."
        )


def read_text(path: Path, encoding: str) -> Text:
    """The file as UTF-8: mapped into memory where it is that already, else decoded.

    Raises OSError, EOFError or zlib.error for a file that cannot be read, UnicodeError where `encoding` cannot go on.
    """
    is_utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")
    if path.name.lower().endswith(".gz"):
        data = pa.py_buffer(b"".join(packed_blocks(path)))
    elif path.stat().st_size == 0:
        data = pa.py_buffer(b"")
    else:
        with open(path, "rb") as file:
            data = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    if is_utf8 and _is_valid(data):
        return Text(data)
    return _decoded(data, "utf-8" if is_utf8 else encoding)


def _is_valid(data: pa.Buffer) -> bool:
    offsets = pa.py_buffer(np.array([0, data.size], np.int64))
    try:
        pa.Array.from_buffers(pa.large_string(), 1, [None, offsets, data]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _decoded(data: pa.Buffer, encoding: str) -> Text:
    """Every byte that is no text becomes one character that the text does not have: Arrow's parser stops at a record
    that is malformed and not UTF-8, and what is one bad row must not cost the file."""
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
    view = memoryview(data)
    parts = [decoder.decode(bytes(view[start : start + _BLOCK])) for start in range(0, len(view), _BLOCK)]
    text = "".join([*parts, decoder.decode(b"", final=True)])
    if not _SURROGATE.search(text):
        return Text(pa.py_buffer(text.encode()))
    mark = next(character for character in _NOT_CHARACTERS if character not in text)
    return Text(pa.py_buffer(_SURROGATE.sub(mark, text).encode()), mark)


def read_header(text: Text, delimiter: str, quoting: str) -> tuple[list[str], pa.Buffer]:
    """(column names, the data below them). No names where the file holds nothing but blank lines."""
    start = 3 if text.data.size >= 3 and text.data[:3].to_pybytes() == codecs.BOM_UTF8 else 0
    rest = text.data[start:]
    if quoting == "backslash":
        rest = _unescaped(rest)
    for length in (2**16, _HEADER_BYTES):
        names, size = _first_record(rest[:length].to_pybytes(), delimiter, quoting)
        if size < length:
            break
    return names, rest[size:]


def _first_record(head: bytes, delimiter: str, quoting: str) -> tuple[list[str], int]:
    """(fields, bytes up to its end) of the first record that is not blank."""
    # A byte is a character here, so that what the reader consumed can be counted in bytes.
    consumed = 0

    def lines() -> Iterator[str]:
        nonlocal consumed
        for line in io.StringIO(head.decode("latin-1"), newline=""):
            consumed += len(line)
            yield line

    style = csv.QUOTE_NONE if quoting == "none" else csv.QUOTE_MINIMAL
    old = csv.field_size_limit(_HEADER_BYTES)
    try:
        for fields in csv.reader(lines(), delimiter=delimiter, quoting=style):
            if fields:
                names = [field.encode("latin-1").decode("utf-8", "replace").strip() for field in fields]
                return names, consumed
    except csv.Error:
        pass
    finally:
        csv.field_size_limit(old)
    return [], len(head)


def _unescaped(data: pa.Buffer) -> pa.Buffer:
    """Quotes that are escaped by a backslash are doubled instead, and a doubled backslash is one."""
    return pa.py_buffer(_ESCAPED.sub(lambda found: b'""' if found[1] == b'"' else b"\\", memoryview(data)))


def default_quoting(text: Text, delimiter: str) -> str:
    """ "none" for tab-separated files; for others "double", or "backslash" where fewer records are malformed by it."""
    if delimiter == "\t":
        return "none"
    if not _holds(text.data, b'\\"'):
        return "double"
    misfits = {}
    for quoting in ("double", "backslash"):
        names, body = read_header(text, delimiter, quoting)
        misfits[quoting] = int(_parse(body, delimiter, quoting, len(names), []).malformed_lines.sum()) if names else 0
    if misfits["double"] != misfits["backslash"]:
        return min(misfits, key=lambda quoting: misfits[quoting])
    # A backslash before the quote that closes a field may be the field's own last character.
    inside, closing = (
        sum(1 for _ in re.finditer(rb'\\"' + what, memoryview(text.data))) for what in (rb'[^",\r\n]', rb"[,\r\n]")
    )
    return "backslash" if inside > closing else "double"


def read_records(body: pa.Buffer, delimiter: str, quoting: str, n_columns: int, columns: list[int]) -> Records:
    """Parse the data below a header of `n_columns` columns."""
    records = _parse(body, delimiter, quoting, n_columns, columns)
    if n_columns == 1 or quoting == "none" or not _holds(body, b'"'):
        return records
    if _count_lines(body) <= len(records.table) + int(records.malformed_lines.sum()):
        return records
    return _without_swallowed(records, body, delimiter, quoting, n_columns)


def _parse(body: pa.Buffer, delimiter: str, quoting: str, n_columns: int, columns: list[int]) -> Records:
    if _is_blank(body):
        empty = np.zeros(0, np.int64)
        table = pa.table({str(i): pa.array([], pa.string()) for i in columns})
        return Records(table, empty, empty, empty, empty)
    names = [str(i) for i in range(n_columns)]
    quoted = quoting != "none" and _holds(body, b'"')
    convert = pa.csv.ConvertOptions(
        include_columns=[str(i) for i in columns or [0]],
        column_types={name: pa.string() for name in names},
        check_utf8=False,
        strings_can_be_null=False,
    )
    for block in (_BLOCK, min(body.size + 1, _LARGEST_BLOCK)):
        malformed: list[tuple[int, int]] = []

        def skip(row: pa.csv.InvalidRow, malformed: list[tuple[int, int]] = malformed) -> str:
            malformed.append((row.number, 1 + max(row.text.count("\n"), row.text.count("\r"))))
            return "skip"

        # One thread, because Arrow numbers bad rows only then.
        read = pa.csv.ReadOptions(use_threads=False, block_size=block, column_names=names)
        parse = pa.csv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if quoted else False,
            newlines_in_values=quoted,
            invalid_row_handler=skip,
        )
        try:
            table = pa.csv.read_csv(
                pa.BufferReader(body), read_options=read, parse_options=parse, convert_options=convert
            )
            break
        except pa.ArrowInvalid:  # a record longer than a block: a quote was left open
            if block > _BLOCK or body.size < _BLOCK:
                raise
    found = np.array(malformed, np.int64).reshape(-1, 2)
    numbers = np.delete(np.arange(1, len(table) + len(found) + 1), found[:, 0] - 1)
    return Records(table, numbers, np.ones(len(table), np.int64), found[:, 0], found[:, 1])


def _without_swallowed(records: Records, body: pa.Buffer, delimiter: str, quoting: str, n_columns: int) -> Records:
    """Count each row's lines, and take for malformed those where a stray quote hid whole records in a field.

    Such a field holds complete lines with as many delimiters as a record has; two of them or more are no chance.
    """
    whole = _parse(body, delimiter, quoting, n_columns, list(range(n_columns))).table
    lines = np.ones(len(whole), np.int64)
    swallowed = np.zeros(len(whole), bool)
    for column in whole.columns:
        breaks = pc.count_substring(column, "\n").to_numpy()
        lines += breaks
        for row in np.flatnonzero(breaks >= 3):
            inner = column[int(row)].as_py().split("\n")[1:-1]
            swallowed[row] |= all(line.count(delimiter) == n_columns - 1 for line in inner)
    if len(whole) and whole.columns[-1][-1].as_py().endswith("\n"):
        lines[-1] -= 1  # a quote that is open up to the end of the file takes in its last line break
    keep = ~swallowed
    malformed = np.r_[records.malformed, records.numbers[swallowed]]
    order = np.argsort(malformed, kind="stable")
    return Records(
        records.table.filter(pa.array(keep)),
        records.numbers[keep],
        lines[keep],
        malformed[order],
        np.r_[records.malformed_lines, lines[swallowed]][order],
    )


def _holds(data: pa.Buffer, needle: bytes) -> bool:
    """Whether the bytes occur, without a copy of the data."""
    return re.search(re.escape(needle), memoryview(data)) is not None


def _is_blank(body: pa.Buffer) -> bool:
    return re.search(rb"[^\r\n]", memoryview(body)) is None


def _count_lines(body: pa.Buffer) -> int:
    """Lines that are not blank."""
    values = np.frombuffer(body, np.uint8)
    ends = np.flatnonzero(values == ord("\n"))
    lengths = np.diff(np.r_[-1, ends, len(values)]) - 1
    lengths[:-1] -= values[ends - 1] == ord(
        "\r"
    )  # at place 0 this looks at the last byte, and the line is blank anyway
    return int(np.count_nonzero(lengths > 0))
