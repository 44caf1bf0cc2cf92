"""Stores made by DuckDB and Spark against those made in memory, byte for byte, and what is said when one is missing."""

from __future__ import annotations

import json
import os
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uqabench.cli import main
from uqabench.data import open_source, prepare
from uqabench.data.rejections import LISTED, REASONS, Rejections
from uqabench.errors import InputError
from uqabench.files import folder_files
from uqabench.settings import PrepareConfig
from uqabench.settings.data import ENGINES, EngineConfig
from uqabench.settings.reader import from_dict

pytest.importorskip("ibis")
OWN = {"manifest.json", "seconds.json"}
"""Files that say when a store was made."""
CONFIGS = {
    "as it is": {"min_user_length": 1, "min_item_interactions": 1},
    "several rounds": {"min_user_length": 6, "min_item_interactions": 40, "max_user_length": 60, "max_sequence": 30},
    "cut": {"min_user_length": 2, "min_item_interactions": 4, "max_sequence": 7, "validation_fraction": 0.3},
    "excluded": {"exclude_items": ["i1", "1003"], "exclude_categories": ["KIND 2"], "max_sequence": 12},
}


RULES = {
    "as it is": [],
    "several rounds": ["items", "users", "users", "older"],
    "cut": ["older"],
    "excluded": ["items", "categories", "users", "older"],
}
"""The beginnings of the rules that remove interactions."""


@pytest.fixture(autouse=True)
def needs(request):
    """What the engine of a test needs is a reason to skip it, not to fail."""
    if getattr(request.node, "callspec", None) and request.node.callspec.params.get("engine") == "spark":
        pytest.importorskip("pyspark")
        if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
            pytest.skip("there is no Java")


def random_rows(rng, size, users, items, with_action):
    """Ids of which the first are the most frequent, one in fifteen missing, and times of which many are equal."""

    def drawn(values):
        places = (len(values) * rng.random(size) ** 2.5).astype(int)
        return [None if rng.random() < 1 / 15 else values[place] for place in places]

    times = (1_700_000_000 + 60 * rng.integers(0, 9, size)).tolist()
    columns = {"user": drawn(users), "item": drawn(items), "time": times}
    return columns | ({"action": drawn(["click", "Ünsubscribe", ""])} if with_action else {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A log in a hive layout of actions, Parquet and CSV, of whose ids some are past int32, Unicode, or unknown."""
    folder, rng = tmp_path_factory.mktemp("engines"), np.random.default_rng(5)
    large = [2**31 + 7, 2**40, 2**62 + 1, 1003, 1004, 1005, -1]
    texts = [
        "é",
        "e\u0301",
        "用户",
        " padded ",
        "x\x00y",
        "1003.0",
        "007",
        "Z",
        "z",
        "ß",
        *(f"u{i}" for i in range(30)),
    ]
    known = [f"i{i}" for i in range(12)] + ["1003"]
    for name, rows in {
        "action=click/a.parquet": random_rows(rng, 300, large, known, False),
        "action=%C3%BC/b.parquet": random_rows(rng, 300, texts, [*known, "absent"], False),
        "action=__HIVE_DEFAULT_PARTITION__/c.parquet": random_rows(rng, 250, texts, known, False),
        "d.parquet": random_rows(rng, 200, texts, known, True),
    }.items():
        path = folder / "log" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(rows), path)
    lines = ["user,item,time,action", "é,i1,1700000000,click", "é,i1,1700000000,click", "é,i2,yesterday,", "Z,i3"]
    (folder / "log" / "e.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    titles = [f"{item},Thing {item},kind {n % 3}" for n, item in enumerate(known)]
    (folder / "items.csv").write_text("\n".join(["item,title,category", *titles, titles[0], ",none,"]) + "\n")
    (folder / "salt").write_bytes(b"0123456789abcdef")
    return folder


def stored(folder, out, engine, interactions="log", **settings):
    source = open_source("tables", interactions=folder / interactions, items=folder / "items.csv")
    engine = {"name": engine, "master": "local[2]", "folder": str(out.parent)}
    config = from_dict(PrepareConfig, {"salt_file": str(folder / "salt"), "engine": engine, **settings}, "prepare")
    return prepare(source, out, config, progress=False)


def assert_same(ours, theirs):
    assert folder_files(ours) == folder_files(theirs)
    for name in set(folder_files(ours)) - OWN:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    inputs = [json.loads((path / "manifest.json").read_text()) for path in (ours, theirs)]
    assert inputs[0]["key"] == inputs[1]["key"]


@pytest.mark.parametrize(
    ("engine", "name"),
    [*(("duckdb", name) for name in CONFIGS), pytest.param("spark", "several rounds", marks=pytest.mark.slow)],
)
def test_every_engine_makes_the_same_store(folder, tmp_path, engine, name):
    ours = stored(folder, tmp_path / "ours", engine, **CONFIGS[name])
    theirs = stored(folder, tmp_path / "theirs", "arrow", **CONFIGS[name])
    assert_same(tmp_path / "ours", tmp_path / "theirs")
    assert ours.content_hash == theirs.content_hash and len(theirs.items) > 50
    facts = theirs.manifest
    assert {"malformed row", "missing id", "unparsable time", "unknown item", "duplicate item"} <= set(
        facts["rejected"]
    )
    assert facts["actions"] == ["", "click", "Ünsubscribe", "ü"]
    removed = [removal["rule"].split()[0] for removal in facts["removals"] if removal["interactions"]]
    assert removed == ["rejected", *RULES[name]]
    assert sorted(os.listdir(tmp_path)) == ["ours", "theirs"]  # what the engine laid down is gone


def test_rows_without_times_and_actions_keep_their_order(folder, tmp_path):
    files = {"interactions": "plain.parquet", "max_sequence": 6}
    rng = np.random.default_rng(1)
    rows = random_rows(rng, 300, ["a", "b", "c", "d"], [f"i{i}" for i in range(12)], False)
    pq.write_table(
        pa.table({name: rows[name] for name in ("user", "item")}), folder / "plain.parquet", row_group_size=70
    )
    stored(folder, tmp_path / "ours", "duckdb", **files)
    store = stored(folder, tmp_path / "theirs", "arrow", **files)
    assert_same(tmp_path / "ours", tmp_path / "theirs")
    assert store.timestamps is None and store.actions is None and set(store.lengths) == {6}


@pytest.mark.parametrize(
    ("engine", "settings"),
    [
        ("duckdb", {"strict": True}),
        ("duckdb", {"min_item_interactions": 10_000}),
        ("duckdb", {"exclude_categories": ["x"]}),
        pytest.param("spark", {"strict": True}, marks=pytest.mark.slow),
    ],
)
def test_every_engine_says_the_same(folder, tmp_path, engine, settings):
    said = []
    for name in ("arrow", engine):
        with pytest.raises(InputError) as raised:
            stored(folder, tmp_path / name, name, **settings)
        said.append(str(raised.value))
    assert said[0] == said[1] and not os.listdir(tmp_path)


def test_too_many_actions_and_files_of_different_columns(folder, tmp_path):
    rows = random_rows(np.random.default_rng(2), 200, ["a", "b", "c"], ["i1", "i2"], False)
    (folder / "wide").mkdir(exist_ok=True)
    pq.write_table(pa.table(rows | {"action": [f"a{i}" for i in range(200)]}), folder / "wide" / "x.parquet")
    with pytest.raises(InputError, match="200 distinct values and may have 127"):
        stored(folder, tmp_path / "out", "duckdb", interactions="wide/x.parquet")
    pq.write_table(pa.table(rows), folder / "wide" / "y.parquet")
    with pytest.raises(InputError, match="column for 'action' and some have none"):
        stored(folder, tmp_path / "out", "duckdb", interactions="wide")


def test_a_kept_log_and_a_recipe_go_through_duckdb(tmp_path):
    rows = [f"u{u}::{(u + t) % 5}::{t}" for u in range(9) for t in range(8)]
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "clicks.txt").write_text("\n".join(rows) + "\n")
    (tmp_path / "shop.yaml").write_text(
        "title: Shop\nurl: x\ndownload: y\nlicence: z.\ncitation: n.\ndomain: purchase\ninteractions:\n"
        "  - files: [clicks.txt]\n    format: {kind: delimited, delimiter: '::', header: [who, what, when]}\n"
        "    columns: {user: who, item: what, time: when}\n    time_unit: s\n"
    )
    (tmp_path / "day.csv").write_text("user,item,time\n" + "\n".join(rows).replace("::", ",") + "\n")
    (tmp_path / "items.csv").write_text("item\n" + "".join(f"{i}\n" for i in range(5)))
    hashes = []
    for engine in ("arrow", "duckdb"):
        config = PrepareConfig(engine=EngineConfig(name=engine))
        recipe = open_source(str(tmp_path / "shop.yaml"), tmp_path / "shop")
        kept = {"items": tmp_path / "items.csv", "keep": tmp_path / f"kept-{engine}"}
        first = open_source("tables", interactions=tmp_path / "day.csv", **kept)
        (tmp_path / "more.csv").write_text("user,item,time\nu1,1,9\n")
        prepare(first, tmp_path / engine / "day", config, progress=False)
        more = open_source("tables", append=tmp_path / "more.csv", **kept)
        stores = [prepare(recipe, tmp_path / engine / "shop", config, progress=False)]
        stores.append(prepare(more, tmp_path / engine / "day", config, progress=False))
        hashes.append([store.content_hash for store in stores])
        assert [len(store.items) for store in stores] == [72, 73]
    assert hashes[0] == hashes[1]


def test_rejections_of_parts_are_those_of_the_whole():
    whole, united = Rejections(), Rejections()
    for file in range(7):
        part = Rejections()
        for into in (whole, part):
            reasons = np.random.default_rng(file).integers(0, 4, 9)
            into.add(f"file {file}", np.arange(1, 10), reasons)
        united.add_those_of(part)
    assert united.listed == whole.listed and united.summary() == whole.summary()
    assert whole.counts[REASONS[0]] > 10 and len(whole.listed) <= 4 * LISTED


def run(arguments, capsys):
    code = main(["prepare", *arguments, "--quiet"])
    return code, capsys.readouterr().err


def test_an_engine_that_would_do_nothing_is_refused(tmp_path, capsys):
    code, said = run(["synthetic", "--engine", "duckdb", "--out", str(tmp_path / "s")], capsys)
    assert code == 2 and "'synthetic' is held in memory as a whole" in said and not (tmp_path / "s").exists()
    code, said = run(["synthetic", "--master", "local[2]", "--out", str(tmp_path / "s")], capsys)
    assert code == 2 and "give --engine spark too" in said


@pytest.mark.parametrize("engine", ENGINES[1:])
def test_a_package_that_is_missing_is_named(folder, tmp_path, monkeypatch, engine):
    for name in [name for name in sys.modules if name.startswith("uqabench.data.engines.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ibis", None)
    with pytest.raises(InputError, match=rf"pip install 'uqabench\[{engine}\]'"):
        stored(folder, tmp_path / "out", engine)


def test_spark_says_which_java_it_needs(folder, tmp_path, monkeypatch):
    pytest.importorskip("pyspark")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(InputError, match="needs Java, and there is none: install Java 17"):
        stored(folder, tmp_path / "out", "spark")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    (tmp_path / "bin" / "java").chmod(0o755)
    with pytest.raises(InputError, match="needs Java 17, and .*java is older"):
        stored(folder, tmp_path / "out", "spark")


def test_a_folder_that_cannot_be_written(folder, tmp_path):
    source = open_source("tables", interactions=folder / "log", items=folder / "items.csv")
    config = PrepareConfig(engine=EngineConfig(name="duckdb", folder=str(tmp_path / "absent")))
    with pytest.raises(InputError, match="absent cannot be written"):
        prepare(source, tmp_path / "out", config, progress=False)
