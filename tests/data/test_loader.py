"""Batches with features: the same items as packed, each described once, from any step on."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from uqabench.data import Loader, batch_plan, plan_batches, windows


def loader(store, **changes):
    users, starts, ends = windows(store, store.users(), 16, mode="chunks")
    return Loader(store, users, starts, ends, **{"token_budget": 64, "seed": 3, **changes})


def test_each_item_s_features_come_once(synthetic_store):
    store, seen = synthetic_store, 0
    for batch in loader(store).batches():
        packed = batch.packed
        assert np.array_equal(batch.unique[batch.inverse], packed.items)
        assert len(set(batch.unique.tolist())) == len(batch.unique)
        for name in store.catalogue.attributes():
            offsets, ids = store.catalogue.tokens[name]
            own = [store.catalogue.codes[name][item] for item in batch.unique]
            assert batch.codes[name].tolist() == own
            words = [ids[offsets[code] : offsets[code + 1]].tolist() if code >= 0 else [] for code in own]
            bounds, flat = batch.tokens[name]
            assert [flat[a:b].tolist() for a, b in zip(bounds[:-1], bounds[1:], strict=True)] == words
        seen += len(packed.items)
    assert seen == len(store.items)


@pytest.mark.parametrize("ahead", [0, 1, 7])
def test_a_run_goes_on_from_any_step(synthetic_store, ahead):
    whole = [batch.packed for batch in loader(synthetic_store).batches()]
    rest = [batch.packed for batch in loader(synthetic_store, ahead=ahead).batches(first=5)]
    assert len(loader(synthetic_store)) == len(whole) and len(rest) == len(whole) - 5
    assert all(np.array_equal(a.items, b.items) for a, b in zip(whole[5:], rest, strict=True))


def test_an_unfinished_epoch_ends_its_thread(synthetic_store):
    batches = loader(synthetic_store).batches()
    next(batches)
    batches.close()


@pytest.mark.parametrize("world", [2, 3, 8])
def test_ranks_have_as_many_batches_and_tokens(world):
    lengths = np.random.default_rng(world).geometric(0.01, 30_000).clip(1, 512)
    plans = [batch_plan(lengths, 8192, seed=1, epoch=2, rank=rank, world=world) for rank in range(world)]
    assert len({len(plan) for plan in plans}) == 1
    tokens = [sum(int(lengths[plan[step]].sum()) for step in range(len(plan))) for plan in plans]
    assert max(tokens) <= 1.01 * min(tokens)
    steps = [[int(lengths[plan[step]].sum()) for plan in plans] for step in range(len(plans[0]))]
    assert np.mean([max(step) - min(step) for step in steps]) < 0.01 * 8192


def test_a_plan_gives_any_step_without_the_others():
    lengths = np.random.default_rng(0).integers(1, 90, 5_000)
    plan = batch_plan(lengths, 900, seed=0, epoch=0)
    assert [plan[step].tolist() for step in range(len(plan))] == [
        rows.tolist() for rows in plan_batches(lengths, 900, seed=0, epoch=0)
    ]


READ_ONLY = """
import os, tempfile
import numba, numpy as np
from numba.core import caching

def refuse(self):
    if not self.get_cache_path().startswith(tempfile.gettempdir()):
        raise OSError("read-only")
    os.makedirs(self.get_cache_path(), exist_ok=True)

caching._CacheLocator.ensure_cache_path = refuse
from uqabench.data import loader
loader._different(np.array([1, 1]), np.full(3, -1, np.int32))
print(numba.config.CACHE_DIR)
"""


def test_a_read_only_installation_keeps_its_machine_code(tmp_path):
    """Only folders among the temporary files can be written, as for a user without a home."""
    environment = {"TMPDIR": str(tmp_path), "PATH": "/bin"}
    done = subprocess.run([sys.executable, "-c", READ_ONLY], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout and list(tmp_path.rglob("loader._different*.nbi"))
    assert next(tmp_path.iterdir()).stat().st_mode & 0o077 == 0
