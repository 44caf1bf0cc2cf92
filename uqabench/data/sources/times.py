"""Points in time, however a log writes them, as microseconds since 1970 in UTC."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uqabench.data.log import MICROSECONDS
from uqabench.data.sources.columns import holds
from uqabench.errors import InputError

UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 1e-3}
"""Microseconds in one unit of a numeric time."""

_YEAR_10000 = 253_402_300_800  # seconds
_IMPLAUSIBLE = 1e11  # read as seconds this is the year 5138, read as milliseconds it is 1973
_SAMPLE = 1000
_BLOCK = 1 << 20  # rows that are parsed at once; the parts of a million texts take some 100 MB

_NUMBER = r"^[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d{1,3})?$"
_CLOCK = r"\d\d(?::\d\d(?::\d\d(?:[.,]\d+)?)?)?"
_COMPACT_CLOCK = r"\d\d(?:\d\d(?:\d\d(?:[.,]\d+)?)?)?"
_ZONE = r" ?(?:[Zz]|UTC|GMT|[+-]\d\d(?::?\d\d)?)?"
_ISO = (
    rf"^(?:\d{{4}}-\d\d-\d\d(?:[Tt ]{_CLOCK}{_ZONE})?"
    rf"|\d{{8}}(?:[Tt ]?{_COMPACT_CLOCK}{_ZONE}|[Tt ]{_CLOCK}{_ZONE})?)$"
)
"""ISO 8601 in its extended and its basic form. A blank may stand for the T and before the zone, and UTC for the Z."""
_PARTS = (
    r"^(?P<year>\d{4})-?(?P<month>\d\d)-?(?P<day>\d\d)"
    r"(?:[Tt ]?(?P<hour>\d\d)(?::?(?P<minute>\d\d)(?::?(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?)?"
    r" ?(?:[Zz]|UTC|GMT|(?P<sign>[+-])(?P<zone_hour>\d\d)(?::?(?P<zone_minute>\d\d))?)?)?$"
)
_CALENDAR = {8: "yyyymmdd", 12: "yyyymmddhhmm", 14: "yyyymmddhhmmss"}
"""Numbers of so many digits that spell a time of 1900 to 2099 are that time."""
_DOUBTFUL = {4: "years", 6: "months (yyyymm)", 10: "hours (yyyymmddhh)"}
"""Numbers of so many digits that spell a time may as well be seconds."""


def parse_times(column: pa.Array, unit: str | None, where: str) -> tuple[np.ndarray, np.ndarray]:
    """(int64 microseconds, bool mask of rows without a readable time; their value is 0).

    Timestamps and dates are taken as they are, without zone as UTC. Numbers count `unit` ("s" by default, "ms", "us",
    "ns"), and are dates where they read yyyymmdd, yyyymmddhhmm or yyyymmddhhmmss. Text is all numbers or all ISO 8601,
    by the majority of a sample or as `unit` says ("iso": never numbers). Fractions of a second are cut to microseconds.
    Raises InputError, with `where` for file and column, when numbers of no stated unit are too large for seconds or
    may be dates as well, and for columns that hold no times.
    """
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _from_temporal(column)
    if pa.types.is_large_string(kind):
        return _from_text(column, unit, where)
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64(), safe=False)
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        raise InputError(f"{where} holds {kind}, which is no point in time: map another column.")
    if unit == "iso":
        return _from_calendar_numbers(_integers(column))
    return _from_numbers(column, unit, where)


def told_alone(kind: pa.DataType, unit: str | None) -> bool:
    """Whether a time of such a column can be read without looking at the others."""
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind) or (pa.types.is_integer(kind) and unit in UNITS)


def form(value: str) -> str:
    """What a value looks like without saying what it is: digits as 9, letters as a and A, at most 40 characters."""

    def kind(character: str) -> str:
        if character.isdecimal():
            return "9"
        if character.isalpha():
            return "A" if character.isupper() else "a"
        return character if character.isascii() and character.isprintable() else "?"

    shape = "".join(kind(character) for character in value[:41])
    return shape if len(shape) <= 40 else f"{shape[:39]}…"


def _from_temporal(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    if pa.types.is_date32(column.type):
        values, scale = column.cast(pa.int32()), 86_400 * MICROSECONDS
    elif pa.types.is_date64(column.type):
        values, scale = column.cast(pa.int64()), UNITS["ms"]
    else:
        values, scale = column.cast(pa.int64()), UNITS[column.type.unit]
    return _scaled(values.cast(pa.int64()), scale)


def _scaled(column: pa.Array, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of `scale` microseconds; integers exactly, fractions to the nearest microsecond."""
    null = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_integer(column.type):
        values = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
        good = ~null & (np.abs(values.astype(np.float64)) * scale < _YEAR_10000 * MICROSECONDS)
        values = np.where(good, values, 0).astype(np.int64)
        return (values * int(scale) if scale >= 1 else values // round(1 / scale)), ~good
    values = column.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore", invalid="ignore"):
        values = values * scale
        good = ~null & (np.abs(values) < _YEAR_10000 * MICROSECONDS)
    return np.rint(np.where(good, values, 0.0)).astype(np.int64), ~good


def _sample(column: pa.Array) -> pa.Array:
    """Values from all parts of the column, nulls left out."""
    if len(column) > 100 * _SAMPLE:  # without copying a long column
        column = column.take(pa.array(np.linspace(0, len(column) - 1, 100 * _SAMPLE).astype(np.int64)))
    column = column.drop_null()
    return column.take(pa.array(np.unique(np.linspace(0, len(column) - 1, min(len(column), _SAMPLE)).astype(np.int64))))


def _matches(column: pa.Array, pattern: str) -> np.ndarray:
    return pc.match_substring_regex(column, pattern).fill_null(False).to_numpy(zero_copy_only=False)


def _from_text(column: pa.Array, unit: str | None, where: str) -> tuple[np.ndarray, np.ndarray]:
    if unit == "iso":
        return _from_iso(column)
    sample = _sample(column)
    numbers, iso = _matches(sample, _NUMBER), _matches(sample, _ISO)
    if unit is None and iso.sum() > numbers.sum():
        return _from_iso(column)
    return _from_numbers(_numbers(column), unit, where)


def _numbers(column: pa.Array) -> pa.Array:
    """Text as int64, or as float64 where a value is not whole; null where it is no number."""
    try:
        if not holds(column, b"x") and not holds(column, b"X"):  # Arrow reads hexadecimals
            return column.cast(pa.int64())
    except pa.ArrowInvalid:
        pass
    column = pc.if_else(pa.array(_matches(column, _NUMBER)), column, pa.scalar(None, column.type))
    if not _matches(column, r"[.,eE]").any() and (pc.max(pc.binary_length(column)).as_py() or 0) <= 18:
        return pc.replace_substring_regex(column, r"^\+", "").cast(pa.int64())
    return pc.replace_substring(column, ",", ".").cast(pa.float64())


def _from_iso(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:  # one notation, without or with zones: Arrow's parser is 20 times as fast
            return _from_temporal(column.cast(kind))
        except pa.ArrowInvalid:
            continue
    blocks = [_from_iso_parts(column[start : start + _BLOCK]) for start in range(0, max(len(column), 1), _BLOCK)]
    return np.concatenate([times for times, _ in blocks]), np.concatenate([bad for _, bad in blocks])


def _from_iso_parts(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    column = pc.if_else(pa.array(_matches(column, _ISO)), column, pa.scalar(None, column.type))
    parts = pc.extract_regex(column, _PARTS)
    good = parts.is_valid().to_numpy(zero_copy_only=False)

    def number(name: str, width: int = 2) -> np.ndarray:
        digits = pc.utf8_slice_codeunits(pc.struct_field(parts, name).fill_null(""), 0, width)
        digits = pc.utf8_rpad(digits, width, "0")  # what was not written is zero, a fraction has six digits
        return digits.cast(pa.int64()).to_numpy(zero_copy_only=False)

    times, valid = _civil(*(number(name, 4 if name == "year" else 2) for name in ("year", "month", "day")))
    hour, minute, second = number("hour"), number("minute"), number("second")
    zone_hour, zone_minute = number("zone_hour"), number("zone_minute")
    east = np.where(
        pc.equal(pc.struct_field(parts, "sign"), "-").fill_null(False).to_numpy(zero_copy_only=False), -1, 1
    )
    valid &= good & (hour < 24) & (minute < 60) & (second <= 60) & (zone_hour < 16) & (zone_minute < 60)
    seconds = times + 3600 * hour + 60 * minute + second - east * (3600 * zone_hour + 60 * zone_minute)
    return np.where(valid, seconds * MICROSECONDS + number("fraction", 6), 0), ~valid


def _civil(year: np.ndarray, month: np.ndarray, day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(seconds since 1970 at the beginning of a day, bool mask of days that exist)."""
    good = (year >= 0) & (year < 10_000) & (month >= 1) & (month <= 12) & (day >= 1)
    months = np.where(good, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    first = months.astype("datetime64[D]")
    good &= day <= ((months + 1).astype("datetime64[D]") - first).astype(np.int64)
    return (first.astype(np.int64) + np.where(good, day - 1, 0)) * 86_400, good


def _from_numbers(column: pa.Array, unit: str | None, where: str) -> tuple[np.ndarray, np.ndarray]:
    if unit is None:
        sample = _sample(column)
        whole = _integers(sample)
        values, digits = _digits(whole)
        _, bad = _from_calendar_numbers(whole)
        if len(values) and (~bad).mean() > 0.5:
            return _from_calendar_numbers(_integers(column))
        for length, what in _DOUBTFUL.items():
            if len(sample) and (digits == length).all() and _spells_a_time(values, length).all():
                raise InputError(
                    f"{where} holds numbers of {length} digits, which may be {what} or seconds since 1970: set "
                    "time_unit to s if they are seconds, else write the times as dates (2024-01-31)."
                )
        sizes = np.abs(sample.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
        sizes = sizes[sizes < 1e20]  # what is more is no time in any unit
        if len(sizes) and np.median(sizes) > _IMPLAUSIBLE:
            raise InputError(
                f"{where} holds numbers of {len(f'{np.median(sizes):.0f}')} digits, too large for seconds: set "
                "time_unit (ms, us or ns; s if they are seconds indeed)."
            )
    return _scaled(column, UNITS[unit or "s"])


def _integers(column: pa.Array) -> pa.Array:
    """Numbers as int64, with nulls where they are no whole numbers below 2^53."""
    values = column.cast(pa.float64(), safe=False)
    fit = pc.and_(pc.equal(pc.trunc(values), values), pc.less(pc.abs(values), 2.0**53))
    return pc.if_else(pc.fill_null(fit, False), values, pa.scalar(None, pa.float64())).cast(pa.int64())


def _digits(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(values with -1 for nulls, number of their decimal digits; 0 for negative ones)."""
    values = column.fill_null(-1).to_numpy(zero_copy_only=False)
    powers = 10 ** np.arange(1, 17, dtype=np.int64)
    return values, np.where(values < 0, 0, 1 + np.searchsorted(powers, values, side="right"))


def _split(values: np.ndarray, length: int) -> list[np.ndarray]:
    """Year, month, day, hour, minute and second of numbers of `length` digits; what is not written begins the year."""
    parts = [values // 10 ** (length - 4)]
    for start, empty in zip(range(4, 14, 2), (1, 1, 0, 0, 0), strict=True):
        known = start + 2 <= length
        parts.append(values // 10 ** (length - start - 2) % 100 if known else np.full_like(values, empty))
    return parts


def _spells_a_time(values: np.ndarray, length: int) -> np.ndarray:
    year, month, day, hour, minute, second = _split(values, length)
    days = _civil(year, month, day)[1]
    return days & (year >= 1900) & (year < 2100) & (hour < 24) & (minute < 60) & (second < 60)


def _from_calendar_numbers(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers that spell a date or a time, in UTC."""
    values, digits = _digits(column)
    times, good = np.zeros(len(values), np.int64), np.zeros(len(values), bool)
    for length in _CALENDAR:
        rows = np.flatnonzero(digits == length)
        rows = rows[_spells_a_time(values[rows], length)]
        year, month, day, hour, minute, second = _split(values[rows], length)
        seconds = _civil(year, month, day)[0] + 3600 * hour + 60 * minute + second
        times[rows], good[rows] = seconds * MICROSECONDS, True
    return times, ~good
