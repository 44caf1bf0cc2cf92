"""Logs that were damaged at random: one sentence or counted rows, whatever the bytes."""

from __future__ import annotations

import datetime
import decimal
import gzip
import io
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data import damage
from tests.data.damage import CASES, quick
from uqabench.data import open_source
from uqabench.data.rejections import Rejections
from uqabench.errors import InputError

SECRET = "alice@example.org"
ITEMS = b'item,title,category\na,"Apple, red",fruit\nb,"Bread ""old""",bakery\n7,Seven,\n'
CLICKS = (
    "user,item,time,action\n"
    f"{SECRET},a,2024-05-01 10:00:00,view\n"
    f"{SECRET},b,2024-05-01 10:00:01,buy\n"
    "u2,a,2024-05-01 10:00:02,view\n"
    'u2,"7",2024-05-02,"say ""hi"""\n'
    "\n"
    "1003.0,7.0,2024-05-03T10:00:00Z,\n"
    "NULL,a,2024-05-03 10:00:00.123456789 UTC,view\n"
    "Zoë,b,soon,view\n"
).encode()
HOSTILE = [
    b'"', b"\\", b'\\"', b",", b"\t", b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf",
    b"\x1b[31m", b"NULL", b"nan", b"1e999", b"-", b"20231114", b"9" * 30, b"0x1F", b"\xef\xb7\x90", b"user",
    b'"\n"', b"\xe2\x80\xa8", b"  ",
]  # fmt: skip
damaged = partial(damage.damaged, pieces=HOSTILE)


def check(
    folder, clicks: bytes, items: bytes, name: str = "clicks.csv", item_name: str = "items.csv", **options
) -> None:
    """Reading ends in rows and counted rejections, or in one fit sentence."""
    (folder / name).write_bytes(clicks)
    (folder / item_name).write_bytes(items)
    rejections = Rejections()
    try:
        log = open_source("tables", interactions=folder / name, items=folder / item_name, **options).read(rejections)
    except InputError as error:
        message = str(error).replace(str(folder), "")
        assert len(message) < 500 and message.isprintable() and SECRET not in message, message
        return
    lost = sum(count for reason, count in rejections.summary().items() if reason != "duplicate item")
    assert len(log.users) <= log.read[2] <= len(log.users) + lost
    assert len(log.users) == len(log.items) and (log.times is None or len(log.times) == len(log.users))
    assert log.users.min(initial=0) >= 0 and log.users.max(initial=-1) < len(log.user_ids)
    assert log.items.min(initial=0) >= 0 and log.items.max(initial=-1) < len(log.item_ids)
    for ids in (log.user_ids.to_pylist(), log.item_ids.to_pylist()):
        used = [name for name in ids if name is not None]
        assert len(set(used)) == len(used)
    assert all(line["file"] in (name, item_name) and SECRET not in str(line) for line in rejections.listed)


@settings(quick, max_examples=CASES * 2 // 5)
@given(
    clicks=damaged(CLICKS), items=damaged(ITEMS), quoting=st.sampled_from((None, None, "none", "double", "backslash"))
)
def test_damaged_csv(tmp_path, clicks, items, quoting):
    check(tmp_path, clicks, items, quoting=quoting)


@settings(quick, max_examples=CASES // 10)
@given(clicks=damaged(CLICKS.replace(b",", b"\t")), items=damaged(ITEMS))
def test_damaged_tsv(tmp_path, clicks, items):
    check(tmp_path, clicks, items, name="clicks.tsv")


@settings(quick, max_examples=CASES // 10)
@given(
    clicks=damaged(CLICKS),
    encoding=st.sampled_from(
        ("latin-1", "cp1252", "utf-16", "utf-16-be", "utf-32", "shift-jis", "gb18030", "utf-7", "cp037")
    ),
    packed=st.booleans(),
)
def test_other_encodings_and_packed_files(tmp_path, clicks, encoding, packed):
    name = "clicks.csv.gz" if packed else "clicks.csv"
    check(tmp_path, gzip.compress(clicks) if packed else clicks, ITEMS, name=name, encoding=encoding)


@settings(quick, max_examples=CASES // 10)
@given(clicks=damaged(gzip.compress(CLICKS)))
def test_damaged_gzip(tmp_path, clicks):
    check(tmp_path, clicks, ITEMS, name="clicks.csv.gz")


def parquet(columns: dict[str, pa.Array]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(list(columns.values()), names=list(columns)), sink)
    return sink.getvalue()


PLAIN = {
    "user": pa.array([SECRET, "u2"]),
    "item": pa.array(["a", "b"]),
    "time": pa.array([1, 2]),
    "action": pa.array(["v", "w"]),
}


@settings(quick, max_examples=CASES // 4)
@given(clicks=damaged(parquet(PLAIN)))
def test_damaged_parquet(tmp_path, clicks):
    check(tmp_path, clicks, ITEMS, name="clicks.parquet")


VALUES = st.one_of(
    st.tuples(st.just(pa.string()), st.text(max_size=4) | st.sampled_from(["a", "NULL", "7.0", "2024-05-01"])),
    st.tuples(st.sampled_from([pa.binary(), pa.large_binary()]), st.binary(max_size=4)),
    st.tuples(st.just(pa.binary(2)), st.binary(min_size=2, max_size=2)),
    st.tuples(st.just(pa.int64()), st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3 * 10**7)),
    st.tuples(st.just(pa.uint64()), st.integers(0, 2**64 - 1)),
    st.tuples(st.sampled_from([pa.float32(), pa.float64()]), st.floats(width=32)),
    st.tuples(st.just(pa.float16()), st.floats(width=16)),
    st.tuples(st.just(pa.bool_()), st.booleans()),
    st.tuples(st.just(pa.decimal128(20, 3)), st.decimals(-(10**6), 10**6, places=3).map(decimal.Decimal)),
    st.tuples(st.just(pa.date32()), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just(pa.timestamp("us")), st.datetimes(datetime.datetime(1900, 1, 1))),
    st.tuples(st.sampled_from([pa.timestamp("s"), pa.timestamp("ns", "UTC")]), st.integers(-(2**62), 2**62)),
    st.tuples(st.sampled_from([pa.time64("us"), pa.duration("ms")]), st.integers(0, 10**6)),
    st.tuples(st.just(pa.list_(pa.int8())), st.lists(st.integers(0, 5), max_size=2)),
    st.tuples(st.just(pa.struct({"x": pa.int8()})), st.fixed_dictionaries({"x": st.integers(0, 5)})),
    *([st.tuples(st.just(pa.uuid()), st.uuids().map(lambda value: value.bytes))] if hasattr(pa, "uuid") else []),
    *([st.tuples(st.just(pa.string_view()), st.text(max_size=20))] if hasattr(pa, "string_view") else []),
)


@st.composite
def columns(draw) -> pa.Array:
    """Two values of one type, nulls among them, perhaps as a dictionary."""
    kind, first = draw(VALUES)
    second = draw(st.one_of(st.none(), st.just(first)))
    if pa.types.is_float16(kind):  # older versions of pyarrow take only numpy's
        first, second = np.float16(first), None if second is None else np.float16(second)
    column = pa.array([first, second], kind)
    plain = (
        not pa.types.is_nested(kind)
        and not isinstance(kind, pa.BaseExtensionType)
        and not any(name in str(kind) for name in ("view", "half"))
    )
    return column.dictionary_encode() if plain and draw(st.booleans()) else column


@settings(quick, max_examples=CASES // 4)
@given(
    field=st.sampled_from(["user", "item", "time", "action"]),
    column=columns(),
    both=st.booleans(),
    doubled=st.booleans(),
)
def test_parquet_columns_of_any_type(tmp_path, field, column, both, doubled):
    try:
        clicks = parquet({**PLAIN, field: column})
        if doubled:
            buffer = io.BytesIO()
            pq.write_table(pa.table([*PLAIN.values(), column], names=[*PLAIN, field]), buffer)
            clicks = buffer.getvalue()
    except pa.ArrowException:  # not every value that Arrow holds can be written
        return
    items = parquet({"item": column, "title": column}) if both else parquet({"item": pa.array(["a", "b"])})
    check(tmp_path, clicks, items, name="clicks.parquet", item_name="items.parquet")
