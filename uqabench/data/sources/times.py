"""Points in time, however a log writes them, as microseconds since 1970 in UTC."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uqabench.data.log import MICROSECONDS
from uqabench.data.sources.readers import tolerant
from uqabench.errors import InputError

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Seconds in one unit of a numeric time."""

_YEAR_10000 = 253_402_300_800  # seconds
_IMPLAUSIBLE = 1e11  # read as seconds this is the year 5138, read as milliseconds it is 1973


def parse_times(column: pa.Array, unit: str | None, where: str) -> tuple[np.ndarray, np.ndarray]:
    """(int64 microseconds, bool mask of rows without a readable time; their value is 0).

    Timestamps and dates are taken as they are, without zone as UTC. Numbers count `unit` ("s" by default, "ms",
    "us", "ns"). Text is all numbers or all ISO 8601, by its first value or as unit "iso" says. Raises InputError
    when numbers of no stated unit are too large for seconds; `where` names file and column.
    """
    if unit is not None and unit != "iso" and unit not in UNITS:
        raise InputError(f"There is no time unit '{unit}': choose one of {', '.join(UNITS)} or iso.")
    if pa.types.is_temporal(column.type):
        if pa.types.is_time(column.type) or pa.types.is_duration(column.type):
            raise InputError(f"{where} holds {column.type}, which is no point in time: map another column.")
        return _filled(column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()))
    if pa.types.is_large_string(column.type):
        if unit == "iso" or (unit is None and not _first_is_number(column)):
            return _filled(tolerant(column, _from_iso)[0])
        column = tolerant(column, lambda values: values.cast(pa.float64()))[0]
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_null(column.type)):
        raise InputError(f"{where} holds {column.type}, which is no point in time: map another column.")
    return _from_numbers(column.cast(pa.float64(), safe=False), unit, where)


def _filled(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    bad = column.is_null().to_numpy(zero_copy_only=False)
    return column.fill_null(0).to_numpy(zero_copy_only=False), bad


def _first_is_number(column: pa.Array) -> bool:
    first = pc.drop_null(column)[:1]
    return not tolerant(first, lambda values: values.cast(pa.float64()))[1].any()


def _from_iso(values: pa.Array) -> pa.Array:
    """Arrow parses text with a zone and text without as different types; a column may mix them."""
    values = pc.replace_substring_regex(values, "Z$", "+00:00")  # Arrow 15 does not know the letter
    zoned = pc.match_substring_regex(values, r"[+-]\d\d(?::?\d\d)?$")
    zoned = pc.and_(zoned, pc.match_substring(values, ":"))  # a date alone ends like a zone: 2024-01-05
    null = pa.scalar(None, values.type)
    with_zone = pc.if_else(zoned, values, null).cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    without = pc.if_else(zoned, null, values).cast(pa.timestamp("us")).cast(pa.int64())
    return pc.coalesce(with_zone, without)


def _from_numbers(column: pa.Array, unit: str | None, where: str) -> tuple[np.ndarray, np.ndarray]:
    seconds = column.fill_null(np.nan).to_numpy(zero_copy_only=False) * UNITS[unit or "s"]
    finite = np.isfinite(seconds)
    if unit is None and finite.any() and np.median(np.abs(seconds[finite])) > _IMPLAUSIBLE:
        raise InputError(
            f"{where} holds numbers such as {seconds[finite][0]:.0f}, too large for seconds: set time_unit "
            "(ms, us or ns; s if they are seconds indeed)."
        )
    good = finite & (np.abs(np.where(finite, seconds, 0.0)) < _YEAR_10000)
    return np.rint(np.where(good, seconds, 0.0) * MICROSECONDS).astype(np.int64), ~good
