"""A user's own files: mapping, times, encodings, and bad rows counted to the row."""

from __future__ import annotations

import datetime
import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uqabench.data import PrepareConfig, open_source, prepare
from uqabench.data.rejections import LISTED, Rejections
from uqabench.data.sources.times import parse_times
from uqabench.errors import InputError

ALL = PrepareConfig(min_item_interactions=1, min_user_length=1)
ITEMS = ["a,Apple,fruit", "b,Bread,bakery"]


def read(**options):
    rejections = Rejections()
    log = open_source("tables", **options).read(rejections)
    return log, rejections


def rows_of(log):
    """(user, item) in the order of the log."""
    users, items = log.user_ids.to_pylist(), log.item_ids.to_pylist()
    return [(users[u], items[i]) for u, i in zip(log.users, log.items, strict=True)]


def test_bad_rows_are_counted_by_reason_and_listed(tmp_path):
    (tmp_path / "interactions.csv").write_bytes(
        b"user,item,time\n"
        b"u1,a,10\n"  # 1
        b",a,11\n"  # 2 missing id
        b"u1,  ,12\n"  # 3 missing id
        b"\n"  # blank lines are no rows
        b"u1,b\n"  # 4 malformed row
        b"u2,b,soon\n"  # 5 unparsable time
        b"u2,zzz,14\n"  # 6 unknown item
        b"u\xff,a,15\n"  # 7 not UTF-8
        b"u2,a,16,17\n"  # 8 malformed row
        b'"u\n3",b,18\n'  # 9 malformed row: a line break in an id
        b"u3,zzz,never\n"  # 10 two faults, counted once: unparsable time
        b"u3,b,\n"  # 11 unparsable time
        b"u3,b,nan\n"  # 12 unparsable time
        b"u3,b,20\n"  # 13
        b"u4,d,21\n"  # 14 unknown item: its catalogue row is bad
    )
    (tmp_path / "items.csv").write_bytes(
        b"item,title\n"
        b"a,Apple\n"
        b"b,Bread\n"
        b"a,Avocado\n"  # 3 duplicate item
        b",Cake\n"  # 4 missing id
        b"d,\xe9clair\n"  # 5 not UTF-8
    )
    log, rejections = read(path=tmp_path)
    assert rows_of(log) == [("u1", "a"), ("u3", "b")]
    assert log.read[2] == 14
    assert rejections.summary() == {
        "malformed row": 3,
        "not UTF-8": 2,
        "missing id": 3,
        "unparsable time": 4,
        "unknown item": 2,
        "duplicate item": 1,
    }
    listed = {}
    for line in rejections.listed:
        listed.setdefault((line["reason"], line["file"]), []).append(line["row"])
    assert listed == {
        ("malformed row", "interactions.csv"): [4, 8, 9],
        ("not UTF-8", "interactions.csv"): [7],
        ("not UTF-8", "items.csv"): [5],
        ("missing id", "interactions.csv"): [2, 3],
        ("missing id", "items.csv"): [4],
        ("unparsable time", "interactions.csv"): [5, 10, 11, 12],
        ("unknown item", "interactions.csv"): [6, 14],
        ("duplicate item", "items.csv"): [3],
    }
    assert log.attributes["title"].to_pylist() == ["Apple", "Bread"]


def test_rejections_reach_the_store(write_log, tmp_path):
    rows = [f"u{i % 3},a,{i}" for i in range(9)] + ["u1,zzz,5"] * (LISTED + 5) + ["u1,a,x"]
    store = prepare(open_source("tables", **write_log(rows, ITEMS)), tmp_path / "store", ALL, progress=False)
    assert store.manifest["rejected"] == {"unparsable time": 1, "unknown item": LISTED + 5}
    assert store.manifest["removals"][0]["interactions"] == LISTED + 6
    lines = [json.loads(line) for line in (tmp_path / "store" / "rejected.jsonl").read_text().splitlines()]
    assert lines[0] == {"reason": "unparsable time", "file": "clicks.csv", "row": 35, "form": "a"}
    assert [line["row"] for line in lines[1:]] == list(range(10, 10 + LISTED))


def test_strict_stops_at_the_first_bad_row(write_log, tmp_path):
    rows = ["u1,a,1", "u1,b,x", ",a,2"]
    strict = PrepareConfig(min_item_interactions=1, min_user_length=1, strict=True)
    with pytest.raises(InputError, match="clicks.csv, row 2: unparsable time"):
        prepare(open_source("tables", **write_log(rows, ITEMS)), tmp_path / "store", strict, progress=False)
    assert not (tmp_path / "store").exists()


def test_a_log_of_bad_rows_only(write_log, tmp_path):
    files = write_log(["u1,zzz,1", "u2,yyy,2"], ITEMS)
    with pytest.raises(InputError, match="no usable interaction .rows rejected: 2 by 'unknown item'"):
        prepare(open_source("tables", **files), tmp_path / "store", ALL, progress=False)


def test_column_mapping(write_log):
    files = write_log(
        ["9,1,a,view,ann", "8,1,b,buy,ann"],
        ["a,Acme,x"],
        header="when,n,what,kind,who",
        item_header="sku,maker,other",
    )
    log, rejections = read(
        **files,
        columns={"user": "who", "item": "what", "time": "when", "action": "kind"},
        item_columns={"item": "sku", "brand": "maker"},
    )
    assert rows_of(log) == [("ann", "a")]
    assert rejections.summary() == {"unknown item": 1}
    assert log.times.tolist() == [9_000_000]
    assert (log.action_names, log.actions.tolist()) == (["buy", "view"], [1])
    assert {name: column.to_pylist() for name, column in log.attributes.items()} == {"brand": ["Acme"]}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"columns": {"user": "uid"}},
            r"clicks.csv has no column 'uid': map one of those there are \(user, item, time\)",
        ),
        ({"columns": {"time": "when"}}, "clicks.csv has no column 'when'"),
        ({"item_columns": {"brand": "maker"}}, "things.csv has no column 'maker'"),
        ({"columns": {"users": "user"}}, "maps 'users', which is no field"),
        ({"time_unit": "minutes"}, "no time unit 'minutes'"),
        ({"encoding": "klingon"}, "klingon"),
        ({"items": "nowhere.csv"}, "nowhere.csv does not exist"),
        ({"items": "x" * 300 + ".csv"}, "x.csv does not exist"),
        ({"items": __file__}, "of unknown kind"),
    ],
)
def test_wrong_options(write_log, options, words):
    with pytest.raises(InputError, match=words):
        read(**{**write_log(["u1,a,1"], ITEMS), **options})


def test_missing_required_column_and_doubled_column(write_log):
    with pytest.raises(InputError, match="no column 'item'"):
        read(**write_log(["u1,1"], ITEMS, header="user,time"))
    with pytest.raises(InputError, match="2 columns called 'user'"):
        read(**write_log(["u1,u1,a"], ITEMS, header="user,user,item"))


def test_without_times_rows_stand_in_order(write_log, tmp_path):
    files = write_log(["u1,b", "u2,a", "u1,a", "u1,b"], ITEMS, header="user,item")
    store = prepare(open_source("tables", **files), tmp_path / "store", ALL, progress=False)
    assert store.timestamps is None
    assert [store.catalogue.item_ids[i] for i in store.sequence(int(store.lengths.argmax()))] == ["b", "a", "b"]
    assert store.basket_starts(0).all()


def test_ties_follow_sorted_path_then_row(write_log, tmp_path):
    files = write_log([], ["a,A,x", "b,B,x", "c,C,x", "d,D,x"])
    folder = tmp_path / "parts"
    (folder / "2").mkdir(parents=True)
    (folder / "2" / "part.csv").write_text("user,item,time\nu,c,5\nu,a,5\nv,a,1\n")
    (folder / "10.csv").write_text("user,item,time\nu,d,5\nu,b,5\nu,c,4\n")
    store = prepare(
        open_source("tables", interactions=folder, items=files["items"]), tmp_path / "store", ALL, progress=False
    )
    assert [store.catalogue.item_ids[i] for i in store.sequence(0)] == ["c", "d", "b", "c", "a"]
    assert set(store.manifest["source"]["inputs"]) == {"10.csv", "part.csv", "things.csv"}


def test_fractions_of_a_second_order_rows(write_log, tmp_path):
    files = write_log(["u,b,1.75", "u,a,1.25", "v,a,1"], ITEMS)
    store = prepare(open_source("tables", **files), tmp_path / "store", ALL, progress=False)
    assert [store.catalogue.item_ids[i] for i in store.sequence(int(store.lengths.argmax()))] == ["a", "b"]
    assert store.timestamps[:2].tolist() == [1, 1]


def test_encodings(write_log, tmp_path):
    files = write_log(["u1,a,1"], [])
    files["items"].write_bytes("item,title\na,苹果\n".encode("gb18030"))
    assert read(**files, encoding="gb18030")[0].attributes["title"].to_pylist() == ["苹果"]
    assert read(**files)[1].summary()["not UTF-8"] == 1
    files["items"].write_bytes("item,title\na,Crème brûlée\n".encode("utf-8-sig"))  # a byte order mark
    assert read(**files)[0].attributes["title"].to_pylist() == ["Crème brûlée"]
    compressed = tmp_path / "things.csv.gz"
    compressed.write_bytes(gzip.compress("item\ttitle\na\tÄpfel, rot\n".encode()))
    tabbed = compressed.rename(tmp_path / "things.tsv.gz")
    assert read(**{**files, "items": tabbed})[0].attributes["title"].to_pylist() == ["Äpfel, rot"]


def write_parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_types(tmp_path):
    times = pa.array([datetime.datetime(2020, 1, 1), None, datetime.datetime(2020, 1, 2)], pa.timestamp("ns"))
    clicks = write_parquet(
        tmp_path / "clicks.parquet",
        user=pa.array([7.0, 7.0, None]),
        item=pa.array(["5", "5", "6"]).dictionary_encode(),
        time=times,
    )
    things = write_parquet(tmp_path / "things.parquet", item=pa.array([5, 6], pa.int32()), category=pa.array([1.5, 2]))
    log, rejections = read(interactions=clicks, items=things)
    assert rows_of(log) == [("7", "5")]
    assert rejections.summary() == {"missing id": 1, "unparsable time": 1}
    assert log.times.tolist() == [1_577_836_800_000_000]
    assert log.attributes["category"].to_pylist() == ["1.5", "2"]


def test_parquet_string_that_is_not_utf8(tmp_path):
    raw = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", b"\xff"], pa.binary()).buffers())
    clicks = write_parquet(tmp_path / "clicks.parquet", user=raw, item=pa.array(["a", "a"]))
    things = write_parquet(tmp_path / "things.parquet", item=pa.array(["a"]))
    log, rejections = read(interactions=clicks, items=things)
    assert rows_of(log) == [("a", "a")] and rejections.summary() == {"not UTF-8": 1}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_files_are_named(tmp_path, write_log, share):
    files = write_log(["u1,a,1"], ITEMS)
    whole = write_parquet(tmp_path / "clicks.parquet", user=["u"] * 500, item=["a"] * 500).read_bytes()
    (tmp_path / "clicks.parquet").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match="clicks.parquet cannot be read"):
        read(**{**files, "interactions": tmp_path / "clicks.parquet"})
    packed = gzip.compress(b"user,item\n" + b"".join(b"u%d,a\n" % i for i in range(2000)))
    (tmp_path / "clicks.csv.gz").write_bytes(packed[: int(share * len(packed))])
    with pytest.raises(InputError, match="clicks.csv.gz (cannot be read|is empty)"):
        read(**{**files, "interactions": tmp_path / "clicks.csv.gz"})


def test_a_header_alone_is_an_empty_log(write_log, tmp_path):
    log, rejections = read(**write_log([], ITEMS))
    assert len(log.users) == 0 and log.read == (0, 0, 0) and rejections.summary() == {}
    with pytest.raises(InputError, match="no usable interaction .rows rejected: none"):
        prepare(open_source("tables", **write_log([], ITEMS)), tmp_path / "store", ALL, progress=False)


def test_nested_columns_and_too_many_actions(tmp_path):
    things = write_parquet(tmp_path / "things.parquet", item=["a"])
    nested = write_parquet(tmp_path / "nested.parquet", user=[["u"]], item=["a"])
    with pytest.raises(InputError, match="column 'user' holds list"):
        read(interactions=nested, items=things)
    many = write_parquet(tmp_path / "many.parquet", user=["u"] * 200, item=["a"] * 200, action=list(range(200)))
    with pytest.raises(InputError, match="200 distinct values"):
        read(interactions=many, items=things)


def micro(values, unit=None, kind=None):
    column = pa.array(values, kind) if kind else pa.array(values, pa.large_string())
    times, bad = parse_times(column, unit, "file: column 'time'")
    return [None if b else t for t, b in zip(times.tolist(), bad.tolist(), strict=True)]


def test_times_in_every_notation():
    second = 1_000_000
    assert micro(["1600000000", "1.5", " x", None, "inf", "-1", "1e20"]) == [
        1600000000 * second, 1_500_000, None, None, None, -second, None,
    ]  # fmt: skip
    iso = [
        "1970-01-02",
        "1970-01-01 00:00:01.5",
        "1970-01-01T01:00:00+01:00",
        "1970-01-01T00:00:02Z",
        "1970-13-01",
        None,
    ]
    assert micro(iso) == [86400 * second, 1_500_000, 0, 2 * second, None, None]
    assert micro(["12", "1970-01-02"], "iso") == [None, 86400 * second]
    assert micro([1600000000123], "ms", pa.int64()) == [1600000000123000]
    assert micro([1600000000123456789], "ns", pa.int64())[0] == pytest.approx(1600000000123456, abs=1)
    assert micro([datetime.date(1970, 1, 2)], None, pa.date32()) == [86400 * second]
    with pytest.raises(InputError, match="too large for seconds: set time_unit"):
        micro(["1600000000123"])
    with pytest.raises(InputError, match="no point in time"):
        micro([True], None, pa.bool_())
    with pytest.raises(InputError, match="no point in time"):
        micro([datetime.time(3)], None, pa.time64("us"))


def test_some_files_with_time_and_some_without(write_log, tmp_path):
    files = write_log(["u,a,1"], ITEMS)
    (tmp_path / "more.csv").write_text("user,item\nu,a\n")
    with pytest.raises(InputError, match="'time' and some have none"):
        read(interactions=[files["interactions"], tmp_path / "more.csv"], items=files["items"])


def test_items_in_several_files(write_log, tmp_path):
    files = write_log(["u,a,1", "u,c,2"], ITEMS)
    more = tmp_path / "zmore.csv"
    more.write_text("item,brand\nb,Late\nc,Corp\n")
    log, rejections = read(**{**files, "items": [more, files["items"]]})
    assert log.attributes["brand"].to_pylist() == [None, None, "Corp"]
    assert log.attributes["title"].to_pylist() == ["Apple", "Bread", None]
    assert rejections.listed == [{"reason": "duplicate item", "file": "zmore.csv", "row": 1}]
    assert np.array_equal(log.items, [0, 2])
