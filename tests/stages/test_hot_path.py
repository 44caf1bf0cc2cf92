"""A training step's host work: what it asks of the device, how batches come to it, and when losses are read."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uqabench.encoders import UserEncoder
from uqabench.errors import RunError
from uqabench.kernels.checks import host_array, host_longest
from uqabench.stages import training
from uqabench.stages.copies import apart, joined
from uqabench.stages.packed import TorchBatch
from uqabench.stages.prefetch import prefetched
from uqabench.stages.pretrain import NumberedBatch, PretrainLoss, labelled_batch, training_batches
from uqabench.stages.training import Trainer, seed_everything
from uqabench.stages.unread import EVERY

from .host_reads import as_on_a_gpu, assert_a_step_asks_for_nothing, counted  # noqa: F401

CPU = torch.device("cpu")
ENCODERS = ("gru4rec", "sasrec", "mamba4rec", "mamba2", "trm++", "hstu")


def make_trainer(store, config, folder, dtype=torch.float32):
    seed_everything(0, CPU)
    model = UserEncoder.build(config.encoder, store.catalogue)

    def load(part):
        packed, labels = labelled_batch(store, NumberedBatch(0, 0, part), config)
        return TorchBatch.of(packed, CPU, model, labels=labels)

    trainer = Trainer(
        {"model": model}, PretrainLoss(model, config, store.catalogue.popularity, dtype), config.optim, total_steps=60,
        work=folder, log=folder / "log.jsonl", label="pretrain", progress=False, load=load,
    )  # fmt: skip
    return trainer, load


@pytest.mark.parametrize(
    ("encoder", "objective"),
    [
        *((name, "sl") for name in ENCODERS),
        *(pytest.param(name, "cl", marks=() if name == "hstu" else pytest.mark.slow) for name in ENCODERS),
    ],
)
def test_a_step_asks_the_device_for_nothing(small_store, pretrain_config, tmp_path, as_on_a_gpu, encoder, objective):  # noqa: F811
    """But for the one reading of twenty steps' losses; before, each step asked 23 to 25 times."""
    config = pretrain_config(encoder, objective=objective, batch_size=2, token_budget=48)
    trainer, load = make_trainer(small_store, config, tmp_path)
    first, second = (load(part) for part in training_batches(small_store, config, 0)[:2])
    assert_a_step_asks_for_nothing(trainer, first, second)


def test_the_counter_finds_what_waits(as_on_a_gpu):  # noqa: F811
    x = torch.tensor([3, 0, 5])
    with counted() as found:
        x.tolist(), int(x[0]), bool(x[0]), x.nonzero(), x.unique(), x[x > 0], torch.tensor([1]), x.numpy()
        torch.from_numpy(np.zeros(2)), x.repeat_interleave(x), x.cpu()
        x.repeat_interleave(x, output_size=8), x[torch.arange(2)], x + 1
    names = [key.split(" in ")[0] for key in found.elements()]
    assert sorted(names) == sorted(
        ["tolist", "_local_scalar_dense", "_local_scalar_dense", "nonzero", "_unique2", "index by a mask", "tensor",
         "numpy", "from_numpy", "repeat_interleave", "cpu"]
    )  # fmt: skip


DTYPES = (np.int64, np.int32, np.float32, np.uint8, np.float64)
ARRAYS = st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 9), min_size=1, max_size=3), st.integers(0, 99))


@given(st.lists(ARRAYS, max_size=6))
def test_joined_arrays_come_apart_again(given):
    arrays = {
        str(i): np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)
        for i, (dtype, shape, seed) in enumerate(given)
    }
    buffer, places = joined(arrays, pinned=False)
    found = apart(buffer, places)
    for name, array in arrays.items():
        kept = np.int64 if array.dtype.kind in "iu" else array.dtype
        assert found[name].numpy().dtype == kept and np.array_equal(found[name].numpy(), array)
        assert not array.size or found[name].data_ptr() % 128 == buffer.data_ptr() % 128


def test_a_batch_knows_what_the_host_packed(small_store, pretrain_config):
    config = pretrain_config("gru4rec")
    model = UserEncoder.build(config.encoder, small_store.catalogue).eval()
    users = np.flatnonzero(small_store.lengths >= 20)[:4]
    ends = np.array([5, 20, 1, 8])
    batch = TorchBatch.pack(small_store, users, np.zeros(4, int), ends, CPU, model)
    assert host_array(batch.offsets).tolist() == batch.offsets.tolist() == [0, 5, 25, 26, 34]
    assert host_longest(batch.offsets) == 20
    bare = [batch.items, batch.offsets.clone(), batch.timestamps]  # nothing is known of the copy
    assert torch.equal(model.states(*bare), model.states(batch.items, batch.offsets, batch.timestamps, batch.plan))
    batch.offsets[0] = 1  # what was known of it holds no longer
    with pytest.raises(ValueError, match="must begin with 0"):
        model.states(batch.items, batch.offsets, batch.timestamps, batch.plan)


def test_batches_are_made_ahead_in_order_by_one_thread():
    made, threads, another = [], set(), threading.Semaphore(0)

    def make(i):
        threads.add(threading.get_ident())
        made.append(i)
        another.release()
        return i * i

    for i, square in enumerate(prefetched(range(7), make, 2)):
        while len(made) < min(i + 3, 7):
            assert another.acquire(timeout=60), "no batch is made while the caller is at work"
        assert square == i * i and made == list(range(min(i + 3, 7)))
    assert threading.get_ident() not in threads and len(threads) == 1
    assert list(prefetched(range(3), make, 0)) == [0, 1, 4] and threading.get_ident() in threads


def test_an_error_comes_where_its_batch_would():
    def make(i):
        if i == 3:
            raise RunError("batch 3")
        return i

    found, batches = [], prefetched(range(9), make, 2)
    with pytest.raises(RunError, match="batch 3"):
        for i in batches:
            found.append(i)
    assert found == [0, 1, 2]
    batches = prefetched(iter(range(10**9)), make, 2)
    next(batches)
    batches.close()  # a caller that stops does not wait for the rest


def test_the_host_ahead_trains_the_same_and_tells_late(small_store, pretrain_config, tmp_path, monkeypatch):
    """Equal weights and log whether losses are read at each step or later, with batches made in a thread."""
    config = pretrain_config("trm++", epochs=3, batch_size=8, token_budget=64)
    results = []
    for ahead in (False, True):
        folder = tmp_path / str(ahead)
        folder.mkdir()
        trainer, _ = make_trainer(small_store, config, folder)
        trainer.is_host_ahead = ahead
        trainer.run(lambda epoch: training_batches(small_store, config, epoch))
        results.append((trainer.records, [p.detach().clone() for p in trainer.parameters]))
    assert results[0][0] == results[1][0] and any("train_loss" in row for row in results[0][0])
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))
    (tmp_path / "bad").mkdir()
    trainer, _ = make_trainer(small_store, config, tmp_path / "bad")
    trainer.is_host_ahead, loss_fn = True, trainer.loss_fn
    trainer.loss_fn = lambda batch: (loss_fn(batch)[0] * (math.nan if trainer.step == 3 else 1.0), 1)
    with pytest.raises(RunError, match="the loss became nan at step 3: lower lr"):
        trainer.run(lambda epoch: training_batches(small_store, config, epoch))
    assert trainer.step == EVERY and training.EVERY == EVERY
