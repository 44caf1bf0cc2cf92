"""A day's log added to a kept one: the store is the one that all files would give."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uqabench.cli import main
from uqabench.data import InteractionStore, PrepareConfig, open_source, prepare
from uqabench.errors import InputError
from uqabench.files import folder_files

CONFIG = PrepareConfig(min_item_interactions=1, min_user_length=2)


@pytest.fixture
def days(tmp_path):
    """Three days of a log, one of them Parquet, with bad rows and an item that is missing from the catalogue."""
    rng = np.random.default_rng(0)
    items = "".join(f"i{i},Thing {i},kind {i % 3}\n" for i in range(12))
    (tmp_path / "items.csv").write_text("item,title,category\n" + items)
    paths = []
    for day in range(3):
        users, bought = rng.integers(0, 20, 150), rng.integers(0, 13, 150)
        times = 1_700_000_000 + 86_400 * day + np.sort(rng.integers(0, 5_000, 150))
        if day == 1:
            paths.append(tmp_path / f"day{day}.parquet")
            columns = {"user": [f"u{u}" for u in users], "item": [f"i{i}" for i in bought], "time": times}
            pq.write_table(pa.table(columns), paths[-1])
            continue
        paths.append(tmp_path / f"day{day}.csv")
        lines = [f"u{u},i{i},{t}" for u, i, t in zip(users, bought, times, strict=True)]
        lines[7:7] = ["u1,i2", "u1,,1700000000", "u1,i2,yesterday", "u3,i4,1700000001,9"]
        paths[-1].write_text("user,item,time\n" + "\n".join(lines) + "\n")
    return paths


def tables(days, **options):
    return open_source("tables", items=days[0].with_name("items.csv"), **options)


def same_files(ours, theirs):
    assert folder_files(ours) == folder_files(theirs)
    for name in set(folder_files(ours)) - {"users.arrow", "manifest.json", "seconds.json"}:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_appending_is_rebuilding(days, tmp_path, order):
    keep = tmp_path / "keep"
    prepare(tables(days, interactions=days[order[0]], keep=keep), tmp_path / "store", CONFIG, progress=False)
    for day in order[1:]:
        grown = prepare(tables(days, append=days[day], keep=keep), tmp_path / "store", CONFIG, progress=False)
    whole = prepare(tables(days, interactions=days), tmp_path / "whole", CONFIG, progress=False)
    same_files(tmp_path / "store", tmp_path / "whole")
    assert grown.content_hash == whole.content_hash and grown.manifest["rejected"]["unknown item"] > 10
    assert len(whole.manifest["rejected"]) == 4


def test_earlier_days_need_not_be_there_any_more(days, tmp_path):
    keep = tmp_path / "keep"
    whole = prepare(tables(days, interactions=days[:2]), tmp_path / "whole", CONFIG, progress=False)
    prepare(tables(days, interactions=days[0], keep=keep), tmp_path / "store", CONFIG, progress=False)
    days[0].unlink()
    grown = prepare(tables(days, append=days[1], keep=keep), tmp_path / "store", CONFIG, progress=False)
    assert grown.content_hash == whole.content_hash and grown.manifest["source"] == whole.manifest["source"]


def test_items_that_come_later_are_known_from_the_start(days, tmp_path):
    """An item that an earlier day met before the catalogue had it is no longer unknown."""
    keep = tmp_path / "keep"
    prepare(tables(days, interactions=days[0], keep=keep), tmp_path / "store", CONFIG, progress=False)
    items = days[0].with_name("items.csv")
    items.write_text(items.read_text() + "i12,Thing 12,kind 0\n")
    grown = prepare(tables(days, append=days[1], keep=keep), tmp_path / "store", CONFIG, progress=False)
    whole = prepare(tables(days, interactions=days[:2]), tmp_path / "whole", CONFIG, progress=False)
    assert "unknown item" not in grown.manifest["rejected"] and grown.content_hash == whole.content_hash


def test_what_cannot_be_appended_to_is_said(days, tmp_path):
    with pytest.raises(InputError, match="append adds to interactions that were kept"):
        tables(days, append=days[1])
    with pytest.raises(InputError, match="append adds to interactions that were kept"):
        tables(days, append=days[1], keep=tmp_path / "nothing")
    with pytest.raises(InputError, match="lies inside"):
        prepare(tables(days, interactions=days[0], keep=tmp_path / "s" / "keep"), tmp_path / "s", CONFIG)
    keep = tmp_path / "keep"
    prepare(tables(days, interactions=days[0], keep=keep), tmp_path / "store", CONFIG, progress=False)
    with pytest.raises(InputError, match="was kept with other columns or options"):
        tables(days, append=days[1], keep=keep, time_unit="s")
    kept = next(keep.glob("*.arrow"))
    kept.write_bytes(kept.read_bytes()[:200])
    with pytest.raises(InputError, match="is damaged: delete it"):
        prepare(tables(days, append=days[1], keep=keep), tmp_path / "store", CONFIG, progress=False)


def test_the_commands(days, tmp_path, capsys):
    own = ["--items", str(days[0].with_name("items.csv")), "--keep", str(tmp_path / "keep"), "--out",
           str(tmp_path / "store"), "--min-user-length", "2", "--min-item-interactions", "1", "--quiet"]  # fmt: skip
    assert main(["prepare", "--interactions", str(days[0]), *own]) == 0
    assert main(["prepare", "--append", str(days[1]), *own]) == 0
    whole = prepare(tables(days, interactions=days[:2]), tmp_path / "whole", CONFIG, progress=False)
    assert InteractionStore.open(tmp_path / "store").content_hash == whole.content_hash
    capsys.readouterr()
    assert main(["prepare", "synthetic", "--keep", str(tmp_path / "keep"), "--out", str(tmp_path / "other")]) != 0
    assert "--keep keeps a log of your own" in capsys.readouterr().err
