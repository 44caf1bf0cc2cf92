"""The commands of docs/data.md on scale, as they stand there; the measurement itself is tested in tests/bench."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.scale import main as bench_scale
from uqabench.cli import main
from uqabench.data import InteractionStore

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def commands(name):
    (block,) = re.findall(rf"<!-- test: {name} -->\n```sh\n(.*?)```", PAGE, re.DOTALL)
    return [shlex.split(line) for line in block.splitlines()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_scale(folder):
    ours = [words[1:] for words in commands("scale") if words[0] == "uqabench"]
    assert [words[0] for words in ours] == ["prepare", "verify"]
    assert [main([*words, "--quiet"]) for words in ours] == [0, 0]
    assert len(InteractionStore.open("data/scaled")) > 300


@pytest.mark.slow
def test_smoke(folder):
    """The command at a thousandth of the size."""
    (words,) = commands("smoke")
    assert words[:5] == ["python", "-m", "bench.scale", "--fraction", "1"]
    assert bench_scale(["--fraction", "0.001", *words[5:]]) == 0
    rows = {row["name"]: row for row in json.loads((folder / "runs" / "smoke.json").read_text())["rows"]}
    assert rows["pretrain_rate"]["hours_of_all_epochs"] > 0 and rows["pretrain_rate"]["peak_rss_bytes"] < 8e9


def test_append(folder):
    (folder / "items.csv").write_text("item,title,category\n" + "".join(f"i{i},t{i},c{i % 3}\n" for i in range(9)))
    for day in (1, 2):
        rows = [(f"u{u}", f"i{(u * day + t) % 9}", 86_400 * day + 60 * t) for u in range(12) for t in range(8)]
        users, items, times = zip(*rows, strict=True)
        pq.write_table(pa.table({"user": users, "item": items, "time": times}), folder / f"day{day}.parquet")
    sizes = []
    for words in commands("append"):
        assert words[0] == "uqabench" and main([*words[1:], "--quiet"]) == 0
        sizes.append(len(InteractionStore.open("data/mine").items))
    assert sizes == [96, 192]


@pytest.fixture
def clicks(folder):
    """Files by the names that the page gives."""
    (folder / "items.csv").write_text("item,title\n" + "".join(f"i{i},t{i}\n" for i in range(9)))
    rows = [(f"u{u}", f"i{(u * u + t) % 9}", 60 * (t // 2)) for u in range(12) for t in range(8)]
    users, items, times = zip(*rows, strict=True)
    pq.write_table(pa.table({"user": users, "item": items, "time": times}), folder / "clicks.parquet")


def test_engines(clicks):
    pytest.importorskip("ibis")
    assert [main([*words[1:], "--quiet"]) for words in commands("engines")] == [0, 0]
    ours, theirs = (InteractionStore.open(f"data/{name}") for name in ("by-duckdb", "in-memory"))
    assert len(theirs.items) == 96 and ours.content_hash == theirs.content_hash


@pytest.mark.slow
def test_spark(clicks):
    pytest.importorskip("pyspark")
    if shutil.which("java") is None:
        pytest.skip("there is no Java")
    (ours,), theirs = commands("spark"), commands("engines")[-1]
    assert [main([*words[1:], "--quiet"]) for words in (ours, theirs)] == [0, 0]
    hashes = {InteractionStore.open(f"data/{name}").content_hash for name in ("by-spark", "in-memory")}
    assert len(hashes) == 1


@pytest.fixture
def s3(monkeypatch):
    """A local S3 server, and the environment that leads to it."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    pytest.importorskip("s3fs")
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"), ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    yield fsspec.filesystem("s3", skip_instance_cache=True)
    fsspec.filesystem("s3").clear_instance_cache()
    server.stop()


@pytest.mark.slow
def test_remote(folder, s3):
    """The same store as from the files here, in a hive layout of days."""
    days = [f"2024-05-{day:02}" for day in range(1, 7)]
    rows = [{"user": f"u{u}", "item": f"i{(u + d) % 5}", "day": day} for u in range(9) for d, day in enumerate(days)]
    pq.write_to_dataset(pa.Table.from_pylist(rows), folder / "log", partition_cols=["day"])
    pq.write_table(pa.table({"item": [f"i{i}" for i in range(5)]}), folder / "items.parquet")
    s3.mkdir("clicks")
    for file in (*folder.joinpath("log").rglob("*.parquet"), folder / "items.parquet"):
        s3.put_file(str(file), f"clicks/{file.relative_to(folder).as_posix()}")
    (words,) = commands("remote")
    assert main([*words[1:], "--quiet"]) == 0
    there = InteractionStore.open("data/clicks")
    local = [word.replace("s3://clicks", str(folder)).replace("data/clicks", "data/local") for word in words[1:]]
    assert main([*local, "--quiet"]) == 0
    assert len(there.items) == len(rows) and there.content_hash == InteractionStore.open("data/local").content_hash


@pytest.mark.slow
def test_an_s3_bucket_that_is_not_there(folder, s3, capsys):
    assert main(["prepare", "--interactions", "s3://absent/log/", "--items", "s3://absent/items.csv", "--quiet"]) == 2
    assert "s3://absent/log/" in capsys.readouterr().err and not (folder / "data" / "store").exists()
