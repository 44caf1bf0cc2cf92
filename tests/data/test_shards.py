"""A store in several files: the same as in one, and a rank sees its own part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uqabench.data import InteractionStore, PrepareConfig, open_source, prepare
from uqabench.data.shards import own_shards, shard_bounds
from uqabench.errors import InputError
from uqabench.files import folder_files


@pytest.fixture(scope="module")
def sharded(synthetic_store, tmp_path_factory):
    path = tmp_path_factory.mktemp("sharded") / "store"
    synthetic_store.save(path, shard_rows=300)
    return path


def same(ours, theirs):
    for name in ("offsets", "items", "timestamps", "split"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    assert list(ours.user_ids) == list(theirs.user_ids)


def test_the_shards_together_are_the_store(sharded, synthetic_store):
    names = [name for name in folder_files(sharded) if name.startswith("interactions")]
    assert len(names) > 5 and names[0] == "interactions-00000.arrow"
    same(InteractionStore.open(sharded), synthetic_store)
    same(InteractionStore.verify(sharded), synthetic_store)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_open_parts_that_cover_the_users(sharded, synthetic_store, world):
    parts = [InteractionStore.open(sharded, rank=rank, world=world) for rank in range(world)]
    assert [part.first_user for part in parts] == np.cumsum([0, *(len(part) for part in parts[:-1])]).tolist()
    assert max(len(part.items) for part in parts) < 0.8 * len(synthetic_store.items)
    for part in parts:
        for user in range(len(part)):
            whole = synthetic_store.sequence(part.first_user + user)
            assert np.array_equal(part.sequence(user), whole)
        assert np.array_equal(part.split, synthetic_store.split[part.first_user : part.first_user + len(part)])


def test_more_ranks_than_shards_and_foreign_ranks(sharded, synthetic_store):
    with pytest.raises(InputError, match="1 shard for 2 ranks: prepare it with a smaller shard_rows"):
        InteractionStore.open(synthetic_store.path, rank=0, world=2)
    with pytest.raises(InputError, match=r"rank is 2 and must lie in 0\.\.1"):
        InteractionStore.open(sharded, rank=2, world=2)


def test_prepared_in_shards(tmp_path):
    source = open_source("synthetic", users=60, seed=4)
    one = prepare(source, tmp_path / "one", PrepareConfig(), progress=False)
    many = prepare(source, tmp_path / "many", PrepareConfig(shard_rows=1000), progress=False)
    assert len(many.manifest["shards"]) > 3 and "shards" not in one.manifest
    same(replace(many, user_ids=one.user_ids), one)
    again = prepare(source, tmp_path / "many", PrepareConfig(shard_rows=2000), progress=False)  # replaces its files
    assert len(again.manifest["shards"]) < len(many.manifest["shards"])


def test_a_missing_shard_is_named(sharded, tmp_path):
    import shutil

    shutil.copytree(sharded, tmp_path / "copy")
    (tmp_path / "copy" / "interactions-00002.arrow").unlink()
    with pytest.raises(InputError, match="interactions-00002.arrow is missing or changed"):
        InteractionStore.open(tmp_path / "copy")


@settings(max_examples=100)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(1, 70))
def test_bounds_keep_users_whole_and_files_small(lengths, rows):
    offsets = np.r_[0, np.cumsum(lengths)]
    bounds = shard_bounds(offsets, rows)
    assert bounds[0] == 0 and bounds[-1] == len(lengths) and (np.diff(bounds) > 0).all()
    sizes = offsets[bounds[1:]] - offsets[bounds[:-1]]
    assert all(size <= rows or count == 1 for size, count in zip(sizes, np.diff(bounds), strict=True))


@given(st.integers(1, 40), st.integers(1, 40))
def test_every_shard_has_one_rank(shards, world):
    if world <= shards:
        owned = [i for rank in range(world) for i in own_shards(shards, rank, world)]
        assert owned == list(range(shards))
