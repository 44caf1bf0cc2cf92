"""Hive layouts against the same log with the columns written out, and object stores against the same files here."""

from __future__ import annotations

import csv

import fsspec
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uqabench.cli import main
from uqabench.data import InteractionStore, open_source, prepare
from uqabench.data.rejections import Rejections
from uqabench.data.sources.partitions import NO_VALUE, partition_of
from uqabench.errors import InputError

DAYS, ACTIONS = ("2024-05-01", "2024-05-02", "2024-05-03"), ("add to cart", "a=b/c%")
ROWS = [
    {"user": f"u{u}", "item": f"i{(u * 3 + t) % 7}", "day": DAYS[t % 3], "action": ACTIONS[(u + t) % 2]}
    for u in range(9)
    for t in range(8)
]
COLUMNS = {"time": "day"}


def write_csv(folder, names, rows):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "part-0.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def logs(tmp_path):
    """The rows in one file with all columns, sorted as the layout's paths are, and in a hive layout of pyarrow's."""
    order = [
        row
        for day in DAYS
        for action in sorted(ACTIONS)
        for row in ROWS
        if (row["day"], row["action"]) == (day, action)
    ]
    write_csv(tmp_path / "flat", ["user", "item", "day", "action"], order)
    ds.write_dataset(
        pa.Table.from_pylist(order), tmp_path / "hive", format="parquet", partitioning=["day", "action"],
        partitioning_flavor="hive",
    )  # fmt: skip
    pq.write_table(
        pa.table({"item": [f"i{i}" for i in range(7)], "title": [f"t{i}" for i in range(7)]}),
        tmp_path / "items.parquet",
    )
    return tmp_path


def stored(interactions, items, out, **options):
    return prepare(
        open_source("tables", interactions=interactions, items=items, columns=COLUMNS, **options), out, progress=False
    )


def test_a_hive_layout_is_the_log_with_its_columns(logs):
    flat = stored(logs / "flat", logs / "items.parquet", logs / "a")
    hive = stored(logs / "hive", logs / "items.parquet", logs / "b")
    assert len(hive.items) == len(ROWS) and hive.content_hash == flat.content_hash
    assert hive.manifest["actions"] == sorted(ACTIONS)


def test_text_files_and_values_that_are_missing(tmp_path):
    for user in ("u=1%202", NO_VALUE):
        write_csv(tmp_path / "log" / "kind=x" / f"user={user}", ["item", "day"], [{"item": "i", "day": DAYS[0]}])
    (tmp_path / "items.csv").write_text("item\ni\n")
    rejections = Rejections()
    log = open_source("tables", interactions=tmp_path / "log", items=tmp_path / "items.csv", columns=COLUMNS).read(
        rejections
    )
    assert log.user_ids.take(log.users).to_pylist() == ["u=1 2"]
    assert rejections.summary() == {"missing id": 1}


def test_the_path_decides_about_the_key_of_the_store(logs):
    """Files of the same bytes and names under another folder name are another log."""
    (logs / "hive" / f"day={DAYS[0]}").rename(logs / "hive" / "day=2023-01-01")
    again = stored(logs / "hive", logs / "items.parquet", logs / "b")
    assert again.timestamps.min() == 1672531200


def test_nothing_above_the_given_folder_counts(tmp_path):
    write_csv(tmp_path / "user=me" / "log", ["item"], [{"item": "i"}])
    (tmp_path / "items.csv").write_text("item\ni\n")
    with pytest.raises(InputError, match="has no column 'user'"):
        open_source("tables", interactions=tmp_path / "user=me" / "log", items=tmp_path / "items.csv").read(
            Rejections()
        )


def test_a_kept_log_has_all_columns_itself(logs):
    with pytest.raises(InputError, match="a column that its folders say"):
        stored(logs / "hive", logs / "items.parquet", logs / "b", keep=logs / "kept")


@settings(max_examples=100)
@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=4))
def test_escapes_of_arrow_are_read_back(values):
    from pathlib import PurePath
    from urllib.parse import quote

    folders = [f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in values.items()]
    assert partition_of(PurePath(*folders, "part-0.parquet")) == values


def upload(system, folder, root):
    for file in folder.rglob("*"):
        if file.is_file():
            system.put_file(str(file), f"{root}/{file.relative_to(folder).as_posix()}")


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_urls_are_as_good_as_files(logs, protocol):
    root = f"memory://{logs.name}" if protocol == "memory" else f"file://{logs}"
    if protocol == "memory":
        upload(fsspec.filesystem("memory"), logs, f"/{logs.name}")
    here = stored(logs / "hive", logs / "items.parquet", logs / "a")
    there = stored(f"{root}/hive/", f"{root}/items.parquet", logs / "b")
    assert there.content_hash == here.content_hash
    assert there.manifest["source"]["options"] == here.manifest["source"]["options"]


def test_urls_on_the_command_line(logs):
    upload(fsspec.filesystem("memory"), logs, "/typed")
    files = [
        "--interactions",
        "memory://typed/hive/",
        "--items",
        "memory://typed/items.parquet",
    ]
    assert main(["prepare", *files, "--columns", "time=day", "--out", str(logs / "b"), "--quiet"]) == 0
    assert len(InteractionStore.open(logs / "b").items) == len(ROWS)


def test_errors_name_the_url():
    system = fsspec.filesystem("memory")
    system.pipe_file("/bad/log.parquet", b"PAR1 and no more")
    system.pipe_file("/bad/items.csv", b"item\ni\n")
    for url, words in (
        ("memory://bad/log.parquet", "memory://bad/log.parquet cannot be read"),
        ("memory://bad", "memory://bad/log.parquet cannot be read|memory://bad/items.csv has no column 'user'"),
        ("memory://nowhere/log.parquet", "memory://nowhere/log.parquet holds no interactions file"),
        ("nosuch://bucket/log.parquet", "nosuch://bucket/log.parquet cannot be opened"),
    ):
        with pytest.raises(InputError, match=words):
            open_source("tables", interactions=url, items="memory://bad/items.csv").read(Rejections())
    with pytest.raises(InputError, match="files of this machine"):
        open_source("tables", interactions="memory://bad/items.csv", items="memory://bad/items.csv", keep="kept")
