"""The commands of docs/data.md on scale, as they stand there; the measurement itself is tested in tests/bench."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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
