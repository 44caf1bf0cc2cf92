"""What logs of other programs hold: each form is read right, or refused in one sentence."""

from __future__ import annotations

import datetime
import decimal
import gzip
import json
import subprocess
import sys
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uqabench.data import PrepareConfig, open_source, prepare
from uqabench.data.rejections import Rejections
from uqabench.data.sources.columns import MISSING
from uqabench.data.sources.times import form, parse_times
from uqabench.errors import InputError

ALL = PrepareConfig(min_item_interactions=1, min_user_length=1)
SECRET = "alice@example.org"


@pytest.fixture
def log(tmp_path):
    """`log(interactions, items, **options)` writes bytes, text or a table of columns and reads the log."""

    def write(name, content):
        if isinstance(content, dict):
            pq.write_table(pa.table(content), tmp_path / f"{name}.parquet")
            return tmp_path / f"{name}.parquet"
        path = tmp_path / (name if "." in name else f"{name}.csv")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def read(interactions, items="item,title\na,A\nb,B\nc,C\n", name="clicks", item_name="things", **options):
        rejections = Rejections()
        found = open_source(
            "tables", interactions=write(name, interactions), items=write(item_name, items), **options
        ).read(rejections)
        users, names = found.user_ids.to_pylist(), found.item_ids.to_pylist()
        rows = [(users[u], names[i]) for u, i in zip(found.users, found.items, strict=True)]
        return rows, rejections, found

    return read


# Quotes


def test_a_quote_in_a_tab_separated_file_is_a_character(log):
    """Two inch marks swallowed all lines between them, and --strict saw nothing."""
    lines = [f"u{i}\ta\t{i}\tsome {i}" for i in range(50)]
    lines[10] = 'u10\ta\t10\t"inch'
    lines[40] = 'u40\ta\t40\tinch"'
    text = "user\titem\ttime\tnote\n" + "\n".join(lines) + "\n"
    rows, rejections, _ = log(text, name="clicks.tsv")
    assert len(rows) == 50 and rejections.summary() == {}
    assert len(log(text, name="clicks.tsv", quoting="double")[0]) < 50
    items = 'item\ttitle\na\t"A 5"" pipe"\nb\t"B\nc\tC"\n'
    _, _, found = log(text, items, name="clicks.tsv", item_name="things.tsv")
    assert found.attributes["title"].to_pylist() == ['"A 5"" pipe"', '"B', 'C"']


def test_a_malformed_row_says_how_many_lines_it_took(log, tmp_path):
    good = [f"u{i},a,{i}" for i in range(20)]
    lines = [*good[:5], 'u5,"a,5', *good[6:9], 'u9,a",9,9', *good[10:]]
    rows, rejections, _ = log("user,item,time\n" + "\n".join(lines))
    assert len(rows) == 15 and rejections.listed == [
        {"reason": "malformed row", "file": "clicks.csv", "row": 6, "lines": 5}
    ]
    open_end = [*good[:5], 'u5,"a,5', *good[6:]]
    rows, rejections, _ = log("user,item,time\n" + "\n".join(open_end))
    assert len(rows) == 5 and [line["lines"] for line in rejections.listed] == [15]
    for end in ("", "\n"):
        open_end = "\n".join([*good[:5], 'u5,a,"5', *good[6:]]) + end
        assert [line["lines"] for line in log("user,item,time\n" + open_end)[1].listed] == [15]
    log("user,item,time\n" + "\n".join([*good[:5], 'u5,"a,5', *good[6:]]))
    strict = PrepareConfig(strict=True)
    source = open_source("tables", interactions=tmp_path / "clicks.csv", items=tmp_path / "things.csv")
    with pytest.raises(InputError, match=r"clicks.csv, row 6: malformed row \(15 lines\); correct it"):
        prepare(source, tmp_path / "out", strict, progress=False)


@pytest.mark.parametrize("column", [0, 1, 2, 3])
def test_a_stray_quote_that_hides_whole_records_is_a_malformed_row(log, column):
    """The number of fields is right, so that the parser takes it for one record, whatever column it stands in."""
    lines = [[f"u{i}", "a", str(i), "note"] for i in range(60)]
    lines[10][column] = '"' + lines[10][column]
    lines[30][column] += '"'
    rows, rejections, _ = log("user,item,time,note\n" + "\n".join(",".join(line) for line in lines))
    assert len(rows) == 39 and "u10" not in dict(rows)
    assert rejections.listed == [{"reason": "malformed row", "file": "clicks.csv", "row": 11, "lines": 21}]


def test_a_text_of_several_lines_is_no_fault(log):
    rows, rejections, found = log(
        'user,item,review\nu1,a,"good,\n\nreally,\nfine, and so on\n"\nu2,b,x\n',
        'item,title,category\na,"two\nlines",x\nb,"say ""hi""",y\n',
    )
    assert rows == [("u1", "a"), ("u2", "b")] and rejections.summary() == {}
    assert found.attributes["title"].to_pylist() == ["two\nlines", 'say "hi"']


def test_quotes_escaped_by_a_backslash(log):
    items = 'item,title\n"a","The \\"big\\", one"\n"b","C:\\\\dir"\n"c","\\\\N \\n"\n'
    for text in ('user,item\nu,a\nu,b\n"u \\"x\\"",c\n', "user,item\nu,a\n"):
        _, rejections, found = log(text, items)
        assert rejections.summary() == {}
        assert found.attributes["title"].to_pylist() == ['The "big", one', "C:\\dir", "\\N \\n"]
    # The quote that follows a backslash may as well close the field.
    _, rejections, found = log("user,item\nu,a\n", 'item,title,shop\n"a","C:\\dir\\","x"\n"b","D:\\","y"\n')
    assert rejections.summary() == {} and found.attributes["title"].to_pylist() == ["C:\\dir\\", "D:\\"]
    _, _, found = log("user,item\nu,a\n", 'item,title\na,5\\" pipe\n', quoting="double")
    assert found.attributes["title"].to_pylist() == ['5\\" pipe']


# Bytes that are no text


def test_a_row_of_too_many_fields_that_is_not_utf8_is_one_bad_row(log):
    content = b"user,item,time\n" + b"".join(b"u%d,a,%d\n" % (i, i) for i in range(40))
    rows, rejections, _ = log(content.replace(b"u7,a,7\n", b"u\xff,a,7,\xe9\n").replace(b"u9,a,9\n", b"u\xff9,a,9\n"))
    assert len(rows) == 38 and rejections.listed == [
        {"reason": "malformed row", "file": "clicks.csv", "row": 8},
        {"reason": "not UTF-8", "file": "clicks.csv", "row": 10},
    ]
    assert log("user,item\nu\ufdd0,a\n")[0] == [("u\ufdd0", "a")]  # what marks such bytes elsewhere is a value here


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-8-sig", "gb18030", "UTF8"])
def test_encodings(log, encoding):
    text = "user,item,time\nMüller,a,1\nÉmile,b,2\n" if encoding != "gb18030" else "user,item,time\n王,a,1\n李,b,2\n"
    rows, rejections, _ = log(text.encode(encoding), items="item\na\nb\n".encode(encoding), encoding=encoding)
    assert [user for user, _ in rows] == [line.split(",")[0] for line in text.splitlines()[1:]]
    assert rejections.summary() == {}


@pytest.mark.parametrize(
    "encoding", ["zlib", "hex", "base64", "rot13", "bz2", "", "idna", "undefined", "a\0b", "ü", None, 3, "klingon"]
)
def test_what_is_no_encoding_of_text_is_refused(log, encoding):
    with pytest.raises(InputError, match="encoding: .* is no encoding of text: give one such as"):
        log("user,item\nu,a\n", encoding=encoding)


def test_text_that_the_encoding_cannot_read(log):
    with pytest.raises(InputError, match="things.csv cannot be read: it may be truncated or of another format or enc"):
        log("user,item\nu,a\n", encoding="utf-16")


def test_nothing_runs_on_when_a_reader_has_failed(tmp_path):
    """The interpreter ended in an abort while a reader's thread still ran."""
    (tmp_path / "clicks.csv").write_bytes(b"user,item,time\n" + b"u,a,1\n" * 300_000 + b"u\xff,a,1,2\n" * 5)
    (tmp_path / "things.csv").write_text("item\na\n")
    script = (
        "import sys; from uqabench.data import open_source; from uqabench.data.rejections import Rejections\n"
        "for column in ('user', 'uid'):"
        "    s = open_source('tables', interactions=sys.argv[1], items=sys.argv[2], columns={'user': column});"
        "    s.read(Rejections())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "clicks.csv", tmp_path / "things.csv"], capture_output=True, text=True
    )
    assert done.returncode == 1 and "terminate" not in done.stderr and "no column 'uid'" in done.stderr


# Times


def micro(values, unit=None, kind=None):
    times, bad = parse_times(pa.array(values, kind or pa.large_string()), unit, "clicks.csv: column 'time'")
    return [None if b else t for t, b in zip(times.tolist(), bad.tolist(), strict=True)]


def at(*parts, zone=0):
    moment = datetime.datetime(*parts, tzinfo=datetime.timezone(datetime.timedelta(minutes=zone)))
    return (moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) // datetime.timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-11-14 22:13:20 UTC", at(2023, 11, 14, 22, 13, 20)),
        ("2023-11-14 22:13:20UTC", at(2023, 11, 14, 22, 13, 20)),
        ("2023-11-14 22:13:20.5 GMT", at(2023, 11, 14, 22, 13, 20, 500000)),
        ("2023-11-14 22:13:20 +0000", at(2023, 11, 14, 22, 13, 20)),
        ("2023-11-14 22:13:20 +0530", at(2023, 11, 14, 22, 13, 20, zone=330)),
        ("2023-11-14T22:13:20-08:00", at(2023, 11, 14, 22, 13, 20, zone=-480)),
        ("2023-11-14T22:13:20-0330", at(2023, 11, 14, 22, 13, 20, zone=-210)),
        ("2023-11-14 22:13:20+02", at(2023, 11, 14, 22, 13, 20, zone=120)),
        ("2023-11-14t22:13:20z", at(2023, 11, 14, 22, 13, 20)),
        ("2023-11-14T22:13:20.1234567", at(2023, 11, 14, 22, 13, 20, 123456)),
        ("2023-11-14T22:13:20.123456789Z", at(2023, 11, 14, 22, 13, 20, 123456)),
        ("2023-11-14 22:13:20,25", at(2023, 11, 14, 22, 13, 20, 250000)),
        ("2023-11-14 22:13", at(2023, 11, 14, 22, 13)),
        ("2023-11-14 22", at(2023, 11, 14, 22)),
        ("2023-11-14", at(2023, 11, 14)),
        ("20231114T221320Z", at(2023, 11, 14, 22, 13, 20)),
        ("20231114T221320.5+0100", at(2023, 11, 14, 22, 13, 20, 500000, zone=60)),
        ("20231114T2213", at(2023, 11, 14, 22, 13)),
        ("20231114 22:13:20", at(2023, 11, 14, 22, 13, 20)),
        ("20231114", at(2023, 11, 14)),
        ("20231114221320", at(2023, 11, 14, 22, 13, 20)),
        ("202311142213", at(2023, 11, 14, 22, 13)),
        ("1960-02-29 00:00:00", at(1960, 2, 29)),
        ("0001-01-01", at(1, 1, 1)),
        ("1700000000", 1_700_000_000_000_000),
        ("1700000000.25", 1_700_000_000_250_000),
        ("1700000000,25", 1_700_000_000_250_000),
        ("1.7e9", 1_700_000_000_000_000),
        ("+5", 5_000_000),
        ("2023-02-29", None),
        ("2023-11-31 00:00", None),
        ("2023-13-01", None),
        ("2023-11-14 24:30", None),
        ("2023-11-14 22:60", None),
        ("2023-11-14 22:13:20 CET", None),
        ("2023-11-14-05", None),
        ("202311-14", None),
        ("14/11/2023", None),
        ("yesterday", None),
    ],
)
def test_notations_of_a_time(text, expected):
    assert micro([text]) == [expected]
    assert micro(["2020-05-05 05:05:05"] * 9 + [text])[-1] in (expected, None)
    as_number = int(text) * 1_000_000 if text.isdigit() and len(text) < 13 else None
    assert micro(["1600000000"] * 9 + [text])[-1] in (expected, as_number, None)
    if expected is not None and ("-" in text or "T" in text):
        assert micro([text, "bad"] + ["2020-05-05 05:05:05"] * 3)[0] == expected
        assert micro([text, "2020-05-05 05:05:05Z"], "iso")[0] == expected


def test_the_majority_decides_and_not_the_first_value(log):
    for first in ("NULL", "0", "\\N", "unknown", "1"):
        text = f"user,item,time\nu,a,{first}\n" + "".join(f"u{i},a,2024-05-01 10:00:{i % 60:02d}\n" for i in range(143))
        rows, rejections, found = log(text)
        assert len(rows) == 143 and rejections.summary() == {"unparsable time": 1}
        assert found.times[0] == at(2024, 5, 1, 10)
    rows, _, _ = log("user,item,time\nu,a,2024-05-01\nu,a,5\nu,b,6\n")
    assert len(rows) == 2


def test_dates_written_as_numbers_are_dates_in_every_type():
    days = [20231114, 20240229, 20231231]
    expected = [at(2023, 11, 14), at(2024, 2, 29), at(2023, 12, 31)]
    for kind in (pa.int32(), pa.int64(), pa.uint64(), pa.float64(), pa.decimal128(10, 0)):
        assert micro(days, kind=kind) == expected
        assert micro(days, "iso", kind) == expected
    assert micro([20231114.0, None, 20240229.0], kind=pa.float64()) == [expected[0], None, expected[1]]
    assert micro(["20231114.0", "20240229.0"]) == expected[:2]
    assert micro(days, "s", pa.int64()) == [day * 1_000_000 for day in days]
    assert micro([20231114, 20231399, 5], kind=pa.int64())[1:] == [20231399_000_000, 5_000_000]  # most are no dates
    assert micro([20231114221320], kind=pa.int64()) == [at(2023, 11, 14, 22, 13, 20)]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([2023, 1999, 2024], "numbers of 4 digits, which may be years or seconds since 1970: set time_unit to s"),
        ([202311, 202312], "6 digits, which may be months"),
        ([2030111422, 2031010100], "10 digits, which may be hours"),
        ([1700000000123] * 3, "numbers of 13 digits, too large for seconds: set time_unit"),
    ],
)
def test_what_may_be_two_things_is_refused(values, words):
    for column in (pa.array(values), pa.array([str(value) for value in values], pa.large_string())):
        with pytest.raises(InputError, match=words) as error:
            parse_times(column, None, "clicks.csv: column 'time'")
        assert str(values[0]) not in str(error.value)
    assert micro(values, "s", pa.int64()) == [value * 1_000_000 if value < 10**12 else None for value in values]


def test_integers_are_exact_in_every_unit():
    assert micro([1600000000123456789], "ns", pa.int64()) == [1600000000123456]
    assert micro(["1600000000123456789"], "ns")[0] == pytest.approx(1600000000123456, abs=1)
    assert micro([1600000000123456], "us", pa.uint64()) == [1600000000123456]
    assert micro([-1], "ns", pa.int64()) == [-1]
    for kind in (pa.int64(), pa.uint64(), pa.float64(), pa.decimal128(38, 2), pa.decimal256(40, -2)):
        assert micro([300, None], kind=kind) == [300_000_000, None]
    assert micro([2**63 - 1, -(2**63), 2**62], kind=pa.int64(), unit="us") == [None] * 3
    assert micro([2**64 - 1], kind=pa.uint64(), unit="s") == [None]
    assert micro([float("inf"), float("nan"), -1e300, 1.0], kind=pa.float64()) == [None, None, None, 1_000_000]


def test_timestamps_of_every_unit():
    for unit, factor in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
        for zone in (None, "UTC", "Europe/Berlin"):
            assert micro([1700000000 * factor, None], kind=pa.timestamp(unit, zone)) == [1_700_000_000_000_000, None]
    assert micro([2**62], kind=pa.timestamp("s")) == [None]  # it wrapped round
    assert micro([10**18, 5 * 86_400_000], kind=pa.date64())[1] == 5 * 86_400_000_000
    assert micro([2**31 - 1, 1], kind=pa.date32()) == [None, 86_400_000_000]


def test_bad_times_take_no_longer_than_good_ones():
    """They are told by their form, all at once: no call per value, however many there are."""
    values = ["2024-05-01 10:00:00", "31/12/2023 10 Uhr", None, "2024-02-30", "x"] * 40_000
    times, bad = parse_times(pa.array(values, pa.large_string()), None, "")
    assert bad.reshape(-1, 5).tolist() == [[False, True, True, True, True]] * 40_000
    assert set(times.reshape(-1, 5)[:, 0]) == {at(2024, 5, 1, 10)}


def test_a_bad_time_is_shown_by_its_form(log, tmp_path):
    text = "user,item,time\n" + "".join(f"u{i},a,0{i % 9}/11/2023 Nov à\n" for i in range(30))
    _, rejections, _ = log(text)
    assert rejections.listed[0]["form"] == "99/99/9999 Aaa a"
    source = open_source("tables", interactions=tmp_path / "clicks.csv", items=tmp_path / "things.csv")
    with pytest.raises(InputError, match=r"30 by 'unparsable time' such as 99/99/9999 Aaa a\): check"):
        prepare(source, tmp_path / "out", ALL, progress=False)
    with pytest.raises(InputError, match=r"row 1: unparsable time \(of the form 99/99/9999 Aaa a\); correct"):
        prepare(source, tmp_path / "out", PrepareConfig(strict=True), progress=False)
    assert form("Ab1\x07é王" + "x" * 50) == "Aa9?aa" + "a" * 33 + "…"


# Ids


def test_one_rule_for_ids_in_text_and_in_numbers(log):
    items = "item,title\n1003,A\n7,B\n"
    for users, things in (
        (["1003", "1003.0", "1003"], ["1003", "1003.0", "7.00"]),
        ([1003, 1003, 1003], [1003, 1003, 7]),
        ([1003.0, 1003.0, 1003.0], [1003.0, 1003.0, 7.0]),
        (pa.array([1003] * 3, pa.float32()), pa.array([1003, 1003, 7], pa.uint16())),
        (pa.array([decimal.Decimal("1003.00")] * 3), pa.array([decimal.Decimal("1003.0")] * 2 + [decimal.Decimal(7)])),
        (pa.array(["1003", "1003.0", "1003"]).dictionary_encode(), ["1003", "1003", "7"]),
    ):
        rows, rejections, _ = log({"user": users, "item": things}, items)
        assert rows == [("1003", "1003"), ("1003", "1003"), ("1003", "7")] and rejections.summary() == {}
    text = "user,item\n1003,1003.0\n1003.0,7\n-5.0,7\n007,7\n007.0,7\n1.5,7\n1.0.0,7\n0.0,7\n"
    users = [user for user, _ in log(text, items)[0]]
    assert users == ["1003", "1003", "-5", "007", "007.0", "1.5", "1.0.0", "0"]
    rows, _, _ = log({"user": [1.5, 2.0, None, float("inf")], "item": ["7"] * 4}, items)
    assert [user for user, _ in rows] == ["1.5", "2"]


def test_excluded_items_follow_the_rule_too(log, tmp_path):
    log("user,item\nu,1003\nu,7\nv,7.0\n", "item\n1003\n7\n")
    source = open_source("tables", interactions=tmp_path / "clicks.csv", items=tmp_path / "things.csv")
    for name in ("1003", "1003.0"):
        config = PrepareConfig(min_item_interactions=1, min_user_length=1, exclude_items=[name])
        store = prepare(source, tmp_path / name, config, progress=False)
        assert store.catalogue.item_ids.tolist() == ["7"]


@pytest.mark.parametrize("text", [*MISSING, "", "  ", " NULL "])
def test_texts_that_stand_for_no_id(log, text):
    rows, rejections, found = log(
        f"user,item,action\nu,a,view\n{text},b,view\nu,{text},view\nu,b,{text}\n", f"item,title\na,{text}\nb,B\n"
    )
    assert rows == [("u", "a"), ("u", "b")] and rejections.summary() == {"missing id": 2}
    assert found.attributes["title"].to_pylist() == [None, "B"] and found.action_names == ["", "view"]
    assert log({"user": ["u", text], "item": ["a", "a"]})[0] == [("u", "a")]


def test_floating_point_ids_that_cannot_be_told_apart_are_refused(log):
    for kind, value in ((pa.float64(), 2.0**53), (pa.float32(), 2.0**24)):
        with pytest.raises(InputError, match=r"column 'user' holds ids as floating-point numbers of 2\^"):
            log({"user": pa.array([value], kind), "item": ["a"]})
    assert log({"user": [2**62 + 1], "item": ["a"]})[0] == [(str(2**62 + 1), "a")]


# Types of columns

MOMENT = datetime.datetime(2024, 5, 1, 10)
TYPES = {
    "string": pa.array(["a", " b ", "", "  ", None]),
    "large_string": pa.array(["a", " b ", "", "  ", None], pa.large_string()),
    "binary": pa.array([b"a", b" b ", b"", b"  ", None]),
    "large_binary": pa.array([b"a", b" b ", b"", b"  ", None], pa.large_binary()),
    "fixed_size_binary": pa.array([b"a  ", b" b\0", b"\0\0\0", b"   ", None], pa.binary(3)),
    "dictionary": pa.array(["a", " b ", "", "  ", None]).dictionary_encode(),
}
if hasattr(pa, "string_view"):
    TYPES["string_view"] = pa.array(["a", " b ", "", "  ", None], pa.string_view())
    TYPES["binary_view"] = pa.array([b"a", b" b ", b"", b"  ", None], pa.binary_view())


@pytest.mark.parametrize("kind", TYPES)
def test_text_of_every_type_is_trimmed_and_blank_is_missing(log, kind):
    column = TYPES[kind]
    rows, rejections, found = log({"user": column, "item": column}, {"item": column, "title": column})
    assert rows == [("a", "a"), ("b", "b")] and rejections.summary() == {"missing id": 6}
    assert found.attributes["title"].to_pylist() == ["a", "b"]
    times = pa.array(["2024-05-01 10:00:00", " 2024-05-01 10:00:01 ", "", "  ", None])
    if kind != "fixed_size_binary":
        times = times.dictionary_encode() if kind == "dictionary" else times.cast(column.type)
        _, rejections, found = log({"user": ["u"] * 5, "item": ["a"] * 5, "time": times})
        assert found.times.tolist() == [at(2024, 5, 1, 10), at(2024, 5, 1, 10, 0, 1)]


OTHERS = [
    pa.array([True, False]),
    pa.array([1, 2], pa.int8()),
    pa.array([1, 2], pa.uint64()),
    pa.array(np.array([1.5, 2], np.float16)),
    pa.array([1.5, 2], pa.float32()),
    pa.array([decimal.Decimal("1.50"), decimal.Decimal("2.00")]),
    pa.array([decimal.Decimal("1.50"), decimal.Decimal("2.00")], pa.decimal256(50, 2)),
    pa.array([decimal.Decimal("100"), decimal.Decimal("200")], pa.decimal128(5, 0)),
    pa.array([1, 2], pa.date32()),
    pa.array([86_400_000, 0], pa.date64()),
    pa.array([1, 2], pa.time32("s")),
    pa.array([1, 2], pa.time64("ns")),
    pa.array([1, 2], pa.timestamp("ns", "UTC")),
    pa.array([1, 2], pa.duration("us")),
    pa.nulls(2),
    pa.array([b"\xff\xfe", b"\xfe\xff"], pa.binary(2)),
    pa.array([b"\xff\xfe", b"\xfe\xff"]),
    pa.array([["a"], []]),
    pa.array([{"x": 1}, None]),
    pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int8())),
    pa.array([[1.0, 2.0]] * 2, pa.list_(pa.float32(), 2)),
    pa.array([1, 1]).dictionary_encode(),
    pa.array([MOMENT, MOMENT]).dictionary_encode(),
    pa.RunEndEncodedArray.from_arrays([2], ["a"]),
    pa.array([(1, 2, 3)] * 2, pa.month_day_nano_interval()),
    pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]),
]


@pytest.mark.parametrize("column", OTHERS, ids=lambda column: str(column.type))
def test_every_other_type_is_read_or_refused_in_one_sentence(log, column, monkeypatch):
    """As id, time, action and title; types that Parquet cannot hold come from other readers."""
    try:
        pq.write_table(pa.table({"x": column}), pa.BufferOutputStream())
    except (pa.ArrowException, NotImplementedError):
        pytest.skip("Parquet has no such type")
    plain = ["a", "b"]
    for field in ("user", "item", "time", "action", "title"):
        clicks = {"user": plain, "item": plain, "time": [1, 2], "action": plain}
        items = {"item": plain, "title": plain}
        (items if field == "title" else clicks)[field] = column
        if field == "item":
            items["item"] = column
        try:
            rows, rejections, found = log(clicks, items)
        except InputError as error:
            assert f"column '{field}' holds " in str(error) and len(str(error)) < 300
        else:
            assert len(rows) + sum(rejections.summary().values()) >= 2
    with_text = [str(value) for value in ("1.5", "2")]
    if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type) and column.type.scale:
        assert [user for user, _ in log({"user": column, "item": plain})[0]] == with_text


def test_uuids_are_their_text(log):
    ids = [uuid.UUID(int=i * 2**100 + i) for i in range(3)]
    if not hasattr(pa, "uuid"):
        pytest.skip("this pyarrow has no UUIDs")
    column = pa.array([None, *(i.bytes for i in ids)], pa.uuid())
    rows, rejections, _ = log({"user": column, "item": column}, {"item": [str(i) for i in ids]})
    assert rows == [(str(i), str(i)) for i in ids] and rejections.summary() == {"missing id": 1}
    with pytest.raises(InputError, match=r"fixed_size_binary\[16\], which is no text: write the ids as text"):
        log({"user": pa.array([uuid.uuid4().bytes] * 3, pa.binary(16)), "item": ["a"] * 3})


def test_columns_of_one_name(log, tmp_path):
    for names in (["user", "item", "item"], ["user", "item", "note", "note"]):
        pq.write_table(pa.table([pa.array(["a"])] * len(names), names=names), tmp_path / "doubled.parquet")
        (tmp_path / "doubled.csv").write_text(",".join(names) + "\n" + ",".join("a" for _ in names) + "\n")
        for name in ("doubled.parquet", "doubled.csv"):
            content = (tmp_path / name).read_bytes()
            if names.count("item") > 1:
                with pytest.raises(InputError, match="2 columns called 'item': rename all but one"):
                    log(content, name=name)
            else:
                assert log(content, name=name)[0] == [("a", "a")]


# Messages


def test_messages_name_the_nearest_five_columns(log):
    header = [f"column_{i}" for i in range(100_000)]
    for items in (",".join([*header, "Item_ID", "sku"]) + "\n", {name: ["x"] for name in [*header[:2000], "Item_ID"]}):
        with pytest.raises(
            InputError, match=r"no column 'item_id': map one of its [\d,]+, such as \(.*Item_ID"
        ) as error:
            log("user,item\nu,a\n", items, item_columns={"item": "item_id"})
        assert len(str(error.value)) < 500


def test_a_file_without_a_header_is_named_and_its_row_is_not_shown(log):
    for row in (f"{SECRET},a,7\n", "user_x,4711,2024-05-01\n"):
        with pytest.raises(InputError, match="its first line holds values where names should stand") as error:
            log(row * 3)
        assert SECRET not in str(error.value) and "4711" not in str(error.value)


def test_no_message_holds_a_row_or_a_control_character(log, tmp_path):
    hostile = f"{SECRET}\x1b[31m\x07"
    whole = pa.table({"user": [SECRET] * 500, "item": ["a"] * 500})
    pq.write_table(whole, tmp_path / "whole.parquet")
    parquet = (tmp_path / "whole.parquet").read_bytes()
    packed = gzip.compress(f"user,item\n{SECRET},a\n".encode() * 99)
    for name, content, options in [
        ("clicks.parquet", parquet[: len(parquet) // 2], {}),
        ("clicks.parquet", parquet[:200] + b"\0" * 50 + parquet[250:], {}),
        ("clicks.csv.gz", packed[: len(packed) - 9], {}),
        ("clicks.csv", f"user,{hostile}\n{SECRET},a\n".encode(), {}),
        ("clicks.csv", f"user,item,time\n{SECRET},a,{hostile}\n".encode(), {}),
        ("clicks.csv", f"user,item\n{SECRET},a\n".encode(), {"columns": {"user": hostile}}),
        ("clicks.csv", f"user,item\n{SECRET},a\n".encode(), {"encoding": "utf-16-be"}),
        ("clicks.csv", b"", {}),
        ("clicks.csv", b"\n\n\n", {}),
        ("clicks.tsv", f"user,item\n{SECRET},a\n".encode(), {}),
    ]:
        try:
            rows, rejections, _ = log(content, name=name, **options)
        except InputError as error:
            shown = str(error)
        else:
            shown = json.dumps(rejections.listed)
        if options.get("columns") is None:
            assert SECRET not in shown or name == "clicks.csv" and hostile.encode() in content.splitlines()[0]
        assert shown.isprintable() and len(shown) < 600


# Folders


def test_what_other_programs_leave_in_a_folder_is_not_read(tmp_path):
    folder = tmp_path / "log"
    for name in (
        "part-0.csv", ".ipynb_checkpoints/part-0.csv", "_temporary/0/part-1.csv", "._part-0.csv", "_SUCCESS",
        ".part-0.csv.crc", "day=1/part-0.CSV", "_day=2/part-0.csv",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"user,item\nu{len(name)},a\n")
    (folder / "part-9.csv").write_text("")
    (folder / "part-8.parquet").write_text("")
    (tmp_path / "items.csv").write_text("item\na\n")
    source = open_source("tables", interactions=folder, items=tmp_path / "items.csv")
    names = ("log/part-0.csv", "log/day=1/part-0.CSV", "log/_day=2/part-0.csv", "items.csv")
    assert set(source.inputs()) == set(names)
    assert len(source.read(Rejections()).users) == 3
    (note,) = source.notes
    assert note.startswith("interactions: read 3 files, ") and "left out 5: " in note
    for why in ("(hidden)", "(unfinished)"):
        assert why in note
    assert open_source("tables", interactions=folder / "part-0.csv", items=tmp_path / "items.csv").notes == []
    for file in folder.rglob("*"):
        if file.is_file() and file.name not in ("part-9.csv", "part-8.parquet"):
            file.unlink()
    with pytest.raises(InputError, match=r"log holds no interactions file \(only such as are empty\)"):
        open_source("tables", interactions=folder, items=tmp_path / "items.csv")


def test_one_file_named_twice_is_read_once(tmp_path):
    (tmp_path / "a.csv").write_text("user,item\nu,a\n")
    (tmp_path / "items.csv").write_text("item\na\n")
    (tmp_path / "again.csv").symlink_to(tmp_path / "a.csv")
    both = [tmp_path / "a.csv", tmp_path / "sub" / ".." / "a.csv", tmp_path / "again.csv"]
    (tmp_path / "sub").mkdir()
    assert len(open_source("tables", interactions=both, items=tmp_path / "items.csv").read(Rejections()).users) == 1
    for name in ("interactions.csv", "interactions.parquet"):
        (tmp_path / name).write_text("user,item\nu,a\n")
    with pytest.raises(InputError, match="holds interactions.csv and interactions.parquet: name the one to read"):
        open_source("tables", path=tmp_path)


def test_a_partition_that_is_a_column_too(tmp_path):
    """The path says day=2024-05-01 and the file has a column of that name, of another type."""
    for day in ("2024-05-01", "2024-05-02"):
        (tmp_path / "log" / f"day={day}").mkdir(parents=True)
        table = pa.table({"user": ["u"], "item": ["a"], "day": pa.array([datetime.date.fromisoformat(day)])})
        pq.write_table(table, tmp_path / "log" / f"day={day}" / "part-0.parquet")
    (tmp_path / "items.csv").write_text("item\na\n")
    source = open_source("tables", interactions=tmp_path / "log", items=tmp_path / "items.csv", columns={"time": "day"})
    assert source.read(Rejections()).times.tolist() == [at(2024, 5, 1), at(2024, 5, 2)]


def test_options_of_another_type_are_refused(log):
    for options in (
        {"quoting": "single"}, {"quoting": 3}, {"time_unit": ["s"]}, {"time_unit": 1}, {"columns": ["user"]},
        {"columns": {"user": 3}}, {"item_columns": 5},
    ):  # fmt: skip
        with pytest.raises(InputError, match=next(iter(options))):
            log("user,item\nu,a\n", **options)
    for wrong in (5, [3], None, []):
        with pytest.raises(InputError, match="interactions"):
            open_source("tables", interactions=wrong, items="x.csv")
    assert np.array_equal(log("user,item\nu,a\n", quoting="none")[2].users, [0])
