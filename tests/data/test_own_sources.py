"""A source of another package, declared as an entry point, is known by its name."""

from __future__ import annotations

import sys

import pytest

from uqabench.cli import main
from uqabench.data import InteractionStore, source_names

OWN = '''
import numpy as np
import pyarrow as pa
from uqabench.data.log import RawLog

class Ring:
    """Users walk round a ring of items."""

    name, accepts, notes = "ring", ("users",), []

    def __init__(self, path=None, users=20):
        self.users = int(users)

    def options(self):
        return {"users": self.users}

    def inputs(self):
        return {}

    def read(self, rejections):
        users = np.repeat(np.arange(self.users, dtype=np.int32), 10)
        return RawLog(
            user_ids=pa.array([f"user {i}" for i in range(self.users)]), users=users,
            item_ids=pa.array([f"item {i}" for i in range(5)]),
            items=(np.arange(len(users)) % 5).astype(np.int32),
            attributes={"title": pa.array([f"title {i}" for i in range(5)])},
            read=(self.users, 5, len(users)), times=np.arange(len(users), dtype=np.int64) * 1_000_000,
        )
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    info = tmp_path / "own_source-1.0.dist-info"
    info.mkdir()
    (tmp_path / "own_source.py").write_text(OWN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-source\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[uqabench.sources]\nring = own_source:Ring\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("own_source", None)


def test_an_entry_point_is_a_source(package, tmp_path, capsys):
    assert "ring" in source_names()
    out = tmp_path / "store"
    assert main(["prepare", "ring", "--option", "users=12", "--out", str(out), "--quiet"]) == 0
    store = InteractionStore.open(out)
    assert len(store) == 12 and store.manifest["source"] == {"name": "ring", "options": {"users": 12}, "inputs": {}}
    capsys.readouterr()
    assert main(["sources"]) == 0 and "ring" in capsys.readouterr().out
