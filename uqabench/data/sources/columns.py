"""Columns of any Arrow type as what a log holds: ids and texts."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uqabench.data.log import one_chunk
from uqabench.errors import InputError

MISSING = ("NULL", "Null", "null", "NaN", "NAN", "nan", "None", r"\N", "<NA>", "N/A", "#N/A", "NaT")
"""Texts that stand for no value, as database exports, pandas and spreadsheets write them."""

_TEXT = pa.large_string()  # the strings of one column may exceed the 2 GiB that the small kind can address
_PLAIN_IDS = (
    pa.int32(),
    pa.int64(),
    pa.uint32(),
    pa.uint64(),
    pa.string(),
    pa.large_string(),
    pa.binary(),
    pa.float64(),
)
"""Types whose values are encoded before they are made text."""
_MANTISSA_BITS = {"float": 24, "double": 53}


def read_column(column: pa.ChunkedArray, where: str, not_utf8: str | None = None) -> tuple[pa.Array, np.ndarray]:
    """(values, bool mask of texts that are not UTF-8).

    Text and bytes of every kind become large_string: trimmed, and null where they are empty or one of MISSING; a UUID
    becomes its 36 characters. Numbers, truth values and times keep their type (half precision becomes single);
    dictionaries and runs are spelt out. A value that holds the text `not_utf8` counts as not UTF-8. Raises InputError,
    beginning with `where`, for a column of lists, structures or intervals, or of bytes that are no text.
    """
    if not column.num_chunks:
        column = pa.chunked_array([pa.array([], column.type)])
    array = one_chunk(pa.chunked_array([_plain(chunk, where) for chunk in column.chunks]))
    if not pa.types.is_large_binary(array.type):
        return array, np.zeros(len(array), bool)
    text, bad = _decode(array)
    if pa.types.is_fixed_size_binary(column.type) and bad.sum() > len(bad) / 2:
        raise InputError(f"{where} holds {column.type}, which is no text: write the ids as text or as numbers.")
    if not_utf8 is not None:
        marked = pc.match_substring(text, not_utf8).fill_null(False).to_numpy(zero_copy_only=False)
        text, bad = pc.if_else(pa.array(marked), pa.scalar(None, _TEXT), text), bad | marked
    text = pc.ascii_trim_whitespace(text) if _is_ascii(text) else pc.utf8_trim_whitespace(text)
    missing = pc.is_in(text, value_set=pa.array(["", *MISSING], _TEXT))
    return pc.if_else(missing, pa.scalar(None, _TEXT), text), bad


def _plain(array: pa.Array, where: str) -> pa.Array:
    """The array without wrapping: text and bytes as large_binary, other values in their own type."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        named = getattr(kind, "extension_name", "")
        return _uuids(array.storage) if named == "arrow.uuid" else _plain(array.storage, where)
    if pa.types.is_dictionary(kind):
        return _plain(array.dictionary, where).take(array.indices)
    if pa.types.is_run_end_encoded(kind):
        return _plain(pc.run_end_decode(array), where)
    if _is_bytes(kind):
        array = array.cast(pa.binary()) if pa.types.is_fixed_size_binary(kind) else array
        array = array.cast(pa.large_binary())
        # A fixed width is filled up with zero bytes.
        return pc.replace_substring_regex(array, "\x00+$", "") if pa.types.is_fixed_size_binary(kind) else array
    if pa.types.is_float16(kind):  # Arrow computes nothing with them
        values = array.to_numpy(zero_copy_only=False).astype(np.float32)
        return pa.array(values, mask=array.is_null().to_numpy(zero_copy_only=False))
    if pa.types.is_decimal(kind) or pa.types.is_primitive(kind) or pa.types.is_null(kind) or pa.types.is_boolean(kind):
        if not pa.types.is_interval(kind):
            return array
    raise InputError(f"{where} holds {short(str(kind))} and should hold one text, number or time a row.")


def _is_bytes(kind: pa.DataType) -> bool:
    names = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "fixed_size_binary")
    return any(getattr(pa.types, f"is_{name}", lambda kind: False)(kind) for name in names)


def _uuids(storage: pa.Array) -> pa.Array:
    """The canonical text of 16-byte ids, as large_binary."""
    valid = storage.is_valid().to_numpy(zero_copy_only=False)
    raw = np.frombuffer(b"".join(storage.drop_null().to_pylist()), np.uint8).reshape(-1, 16)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    text = np.full((len(raw), 36), ord("-"), np.uint8)
    places = [i for i in range(36) if i not in (8, 13, 18, 23)]
    text[:, places[0::2]], text[:, places[1::2]] = digits[raw >> 4], digits[raw & 15]
    written = pa.Array.from_buffers(
        pa.large_binary(), len(text), [None, pa.py_buffer(np.arange(len(text) + 1) * 36), pa.py_buffer(text.tobytes())]
    )
    return written.take(pa.array(np.cumsum(valid) - 1, mask=~valid))


def _decode(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """(large_string with nulls where a value is not UTF-8, mask of those)."""
    try:
        return column.cast(_TEXT), np.zeros(len(column), bool)
    except pa.ArrowInvalid:
        values = [_utf8(value) for value in column.to_pylist()]
        text = pa.array(values, _TEXT)
        bad = text.is_null().to_numpy(zero_copy_only=False) & column.is_valid().to_numpy(zero_copy_only=False)
        return text, bad


def _is_ascii(text: pa.Array) -> bool:
    """Trimming by Unicode's rules takes ten times as long."""
    values = text.buffers()[2]
    return values is None or values.size == 0 or int(np.frombuffer(values, np.uint8).max()) < 128


def _utf8(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def as_text(column: pa.Array) -> pa.Array:
    """Values of `read_column` as large_string. Numbers are written without an exponent's or a fraction's empty part:
    1003, 1003.0 and a decimal 1003.00 are "1003"; what is not finite is null."""
    kind = column.type
    if pa.types.is_floating(kind):
        finite = pc.fill_null(pc.is_finite(column), False)
        column = pc.if_else(finite, column, pa.scalar(None, kind))
        whole = pc.and_(pc.equal(pc.trunc(column), column), pc.less(pc.abs(column), pa.scalar(2.0**53).cast(kind)))
        whole = pc.fill_null(whole, False)
        integers = pc.if_else(whole, column, pa.scalar(None, kind)).cast(pa.int64())
        return pc.coalesce(integers.cast(_TEXT), column.cast(_TEXT))
    if pa.types.is_decimal(kind):
        if kind.scale < 0:
            column = column.cast(pa.decimal256(76, 0))
        return pc.replace_substring_regex(column.cast(_TEXT), r"(\.\d*[1-9])0+$|\.0+$", r"\1")
    return column.cast(_TEXT)


def as_ids(column: pa.Array, where: str) -> pa.Array:
    """`as_text` for ids: text that is a whole number with an empty fraction, as pandas writes a column with gaps,
    loses it, so that 1003.0 and 1003 are one id; leading zeros stay. Raises InputError for floating-point numbers too
    large to be told apart."""
    if pa.types.is_floating(column.type):
        bits = _MANTISSA_BITS[str(column.type)]
        largest = pc.max(pc.abs(pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type)))).as_py() or 0.0
        if largest >= 2.0**bits:
            raise InputError(
                f"{where} holds ids as floating-point numbers of 2^{bits} and more, which cannot all be told apart: "
                "write them as integers or as text."
            )
    text = as_text(column)
    if not holds(text, b".0"):
        return text
    return pc.replace_substring_regex(text, r"^(-?(?:0|[1-9]\d*))\.0+$", r"\1")


@dataclass(frozen=True)
class EncodedIds:
    """A column of ids: the distinct ones (string) in the order in which they first occur, and for each row int32 the
    place of its own, -1 where it has none; bool by row: not_utf8, and broken, where the value holds a line break."""

    ids: pa.Array
    codes: np.ndarray
    not_utf8: np.ndarray
    broken: np.ndarray


def encode_ids(column: pa.ChunkedArray, where: str) -> EncodedIds:
    """`as_ids` of `read_column`, worked out once for each distinct value; raises what they raise."""
    if column.type in _PLAIN_IDS:
        encoded = one_chunk(pc.dictionary_encode(column))
        values, not_utf8 = read_column(pa.chunked_array([encoded.dictionary]), where)
        old = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    else:
        values, not_utf8 = read_column(column, where)
        old = np.arange(len(values))
    cleaned = one_chunk(pc.dictionary_encode(as_ids(values, where).cast(pa.string())))
    new = np.r_[cleaned.indices.fill_null(-1).to_numpy(zero_copy_only=False), -1].astype(np.int32)
    broken = np.zeros(len(values), bool)
    if pa.types.is_large_string(values.type) and (holds(values, b"\r") or holds(values, b"\n")):
        broken = pc.match_substring_regex(values, r"[\r\n]").fill_null(False).to_numpy(zero_copy_only=False)

    def by_row(flags: np.ndarray) -> np.ndarray:
        return np.r_[flags, False][old] if flags.any() else np.zeros(len(old), bool)

    return EncodedIds(cleaned.dictionary, new[old], by_row(not_utf8), by_row(broken))


def holds(text: pa.Array, needle: bytes) -> bool:
    """Whether the bytes may occur in a large_string column: one fast search through its memory, without false noes."""
    values = text.buffers()[2]
    return values is not None and re.search(re.escape(needle), memoryview(values)) is not None


def short(text: str, length: int = 60) -> str:
    """A text of a file, fit for a message: one line, no control characters, at most `length` characters."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= length else f"{text[: length - 1]}…"
