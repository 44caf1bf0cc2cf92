"""Small stores that several tests read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from uqabench.data import ATTRIBUTES, Catalogue, InteractionStore, PrepareConfig, open_source, prepare

SYNTHETIC = {"users": 60, "items": 80, "categories": 8, "mean_length": 40.0, "basket_size": 2.0, "seed": 3}


@pytest.fixture(scope="session")
def synthetic_store(tmp_path_factory: pytest.TempPathFactory) -> InteractionStore:
    out = tmp_path_factory.mktemp("data") / "store"
    return prepare(open_source("synthetic", **SYNTHETIC), out, PrepareConfig(), progress=False)


@pytest.fixture(scope="session")
def ragged_store() -> InteractionStore:
    """Users of 0, 1, 7, 20 and 3 interactions; item and timestamp of row r are r and 100 + r."""
    lengths = np.array([0, 1, 7, 20, 3])
    offsets = np.r_[0, np.cumsum(lengths)]
    rows = np.arange(offsets[-1])
    size = len(rows)
    catalogue = Catalogue(
        np.array([f"i{row:02d}" for row in rows], object),
        {name: [] for name in ATTRIBUTES},
        {name: np.full(size, -1, np.int32) for name in ATTRIBUTES},
        np.ones(size, np.int64),
        {name: (np.zeros(1, np.int64), np.zeros(0, np.int32)) for name in ATTRIBUTES},
        0,
    )
    split = np.array([0, 0, 1, 0, 1], np.int8)
    users = [f"u{user}" for user in range(5)]
    return InteractionStore(offsets, rows.astype(np.int32), rows + 100, None, users, split, catalogue)


@pytest.fixture
def write_log(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Writes the CSV files of a log and returns them as options of the source 'tables'."""

    def write(
        rows: list[str], items: list[str], header: str = "user,item,time", item_header: str = "item,title,category"
    ) -> dict[str, Path]:
        files = {"interactions": tmp_path / "clicks.csv", "items": tmp_path / "things.csv"}
        files["interactions"].write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        files["items"].write_text("\n".join([item_header, *items]) + "\n", encoding="utf-8")
        return files

    return write


@pytest.fixture
def plain_log(write_log: Callable[..., dict[str, Path]]) -> dict[str, Path]:
    """Ten users who each meet the same eight items, in an order of their own."""
    rows = [f"user-{u},i{(u + t) % 8},{1000 * t + u}" for u in range(10) for t in range(8)]
    return write_log(rows, [f"i{i},Thing number {i},{'odd' if i % 2 else 'even'}" for i in range(8)])
