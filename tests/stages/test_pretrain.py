"""Pre-training: labels, batches, losses and metrics against brute force."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy, normalize

from uqabench.artifact import Artifact
from uqabench.data.ties import shuffled_ties
from uqabench.encoders import UserEncoder
from uqabench.errors import InputError, RunError
from uqabench.files import read_json
from uqabench.stages.labels import next_item_labels
from uqabench.stages.packed import TorchBatch
from uqabench.stages.pretrain import (
    CUTOFFS,
    NumberedBatch,
    PretrainLoss,
    labelled_batch,
    last_item_ranks,
    popularity_metrics,
    pretrain,
    ranking_metrics,
    training_batches,
)
from uqabench.stages.states import load_encoder
from uqabench.stages.training import OptimConfig, seed_everything

CPU = torch.device("cpu")


def one_sequence(store, user, start, end):
    """A batch of one user's items [start, end)."""
    return TorchBatch.pack(store, np.array([user]), np.array([start]), np.array([end]), CPU)


def labelled(store, users, lengths, config):
    """A batch of the first items of some users, with its labels."""
    spans = (users, np.zeros(len(users), int), np.array(lengths))
    packed, labels = labelled_batch(store, NumberedBatch(0, 0, spans), config)
    return TorchBatch.of(packed, CPU, labels=labels)


@given(st.lists(st.integers(0, 5), max_size=8))
def test_labels_are_each_items_successor_in_its_sequence(lengths):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    labels = next_item_labels(np.arange(100, 100 + int(offsets[-1])), offsets)
    at, targets = labels["label"], labels["target"]
    expected = [i for begin, end in zip(offsets, offsets[1:], strict=False) for i in range(begin, end - 1)]
    assert at.tolist() == expected and targets.tolist() == [100 + i + 1 for i in expected]


@given(st.lists(st.lists(st.integers(1, 4), max_size=5), max_size=6), st.integers(0, 9))
def test_shuffled_ties_stay_in_their_basket(sequences, seed):
    sizes = [sum(baskets) for baskets in sequences]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    stamps = np.concatenate([np.repeat(np.arange(len(b)), b) for b in sequences] or [[]]).astype(np.int64)
    baskets = np.repeat(np.arange(sum(map(len, sequences))), [size for b in sequences for size in b])
    items = np.arange(len(stamps))
    shuffled = shuffled_ties(items, offsets, stamps, np.random.default_rng(seed))
    assert sorted(shuffled) == items.tolist() and (baskets[shuffled] == baskets).all()


def test_ties_are_shuffled_anew_in_each_batch_and_epoch(small_store, pretrain_config):
    """By the batch's number alone, so that training goes on after an interruption as it would have gone on."""
    users = np.flatnonzero(small_store.lengths >= 30)[:5]
    spans = (users, np.zeros(5, int), np.full(5, 30))
    stamps = labelled_batch(small_store, NumberedBatch(0, 0, spans), pretrain_config())[0].timestamps
    assert (np.diff(stamps) == 0).any()

    def items(epoch, index, **changes):
        part = NumberedBatch(epoch, index, spans)
        return labelled_batch(small_store, part, pretrain_config(**changes))[0].items.tolist()

    stored = items(0, 0)
    orders = [items(epoch, index, ties="shuffled") for epoch in (0, 1) for index in (0, 1)]
    assert len({tuple(order) for order in [stored, *orders]}) == 5
    assert all(sorted(order) == sorted(stored) for order in orders)
    assert orders[0] == items(0, 0, ties="shuffled") != items(0, 0, ties="shuffled", seed=1)


@pytest.mark.parametrize("mode", ["last", "chunks"])
def test_batches_hold_every_window_of_training_users_once(small_store, pretrain_config, mode):
    config = pretrain_config(windows=mode, batch_size=7)
    for epoch in (0, 1):
        batches = training_batches(small_store, config, epoch)
        for users, starts, ends in batches:
            assert 0 < len(users) <= 7 and (ends - starts).sum() <= config.token_budget
        users, starts, ends = (np.concatenate(column) for column in zip(*batches, strict=True))
        assert set(users) <= set(small_store.users("train").tolist())
        covered = {user: set() for user in small_store.users("train").tolist()}
        for user, start, end in zip(users, starts, ends, strict=True):
            assert 2 <= end - start <= config.length
            assert not covered[user] & set(range(start, end))
            covered[user] |= set(range(start, end))
        for user, positions in covered.items():
            length = int(small_store.lengths[user])
            last = set(range(max(0, length - config.length), length))
            if mode == "last":
                assert positions == last
            else:  # single items, which have no successor, are left out
                assert len(positions) >= length - 2
    again = training_batches(small_store, config, 1)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True) for a, b in zip(a, b, strict=True))


def test_the_sl_loss_is_cross_entropy_over_the_catalogue(small_store, pretrain_config, pretrained):
    model = load_encoder(pretrained["sl"], small_store)
    loss = PretrainLoss(model, pretrain_config(), small_store.catalogue.popularity)
    users = np.flatnonzero(small_store.lengths >= 30)[:5]
    batch = labelled(small_store, users, [9, 2, 14, 30, 5], pretrain_config())
    terms = []
    for b in range(5):
        items = batch.items[batch.offsets[b] : batch.offsets[b + 1]]
        one = one_sequence(small_store, users[b], 0, len(items))
        logits = model.queries(model.states(one.items, one.offsets, one.timestamps)) @ model.item_weight.T
        terms.append(cross_entropy(logits[:-1], items[1:], reduction="none"))
    value, tokens = loss(batch)
    torch.testing.assert_close(value, torch.cat(terms).mean(), rtol=1e-5, atol=1e-5)
    assert tokens == 60


def test_the_cl_loss_is_info_nce_with_log_q(small_store, pretrain_config, pretrained):
    """Naively: cosine over temperature less log q, negatives with the positive's id left out."""
    model = load_encoder(pretrained["cl"], small_store)
    config = pretrain_config("hstu", objective="cl", temperature=0.2)
    popularity = small_store.catalogue.popularity
    users = np.flatnonzero(small_store.lengths >= 20)[:3]
    batch = labelled(small_store, users, [9, 12, 20], config)
    value, _ = PretrainLoss(model, config, popularity)(batch)
    at, targets = batch.labels["label"], batch.labels["target"]
    states = model.states(batch.items, batch.offsets, batch.timestamps)
    queries = normalize(model.queries(states[at]), dim=-1)
    q = torch.from_numpy((popularity + 1.0) / (popularity + 1.0).sum()).float()
    logits = queries @ normalize(model.item_weight[targets], dim=-1).T / 0.2 - q[targets].log()
    twin = (targets[:, None] == targets[None]) & ~torch.eye(len(targets), dtype=torch.bool)
    assert twin.any()
    expected = cross_entropy(logits.masked_fill(twin, -torch.inf), torch.arange(len(targets)))
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("objective", ["sl", "cl"])
def test_metrics_are_those_of_dense_scores(small_store, pretrain_config, pretrained, objective):
    encoder = {"sl": "trm++", "cl": "hstu"}[objective]
    config = pretrain_config(encoder, objective=objective)
    artifact = pretrained[objective]
    model = load_encoder(artifact, small_store)
    weight = model.item_weight if objective == "sl" else normalize(model.item_weight, dim=-1)
    ranks, nll = [], []
    for user in small_store.users("evaluation"):
        last = int(small_store.lengths[user]) - 1
        batch = one_sequence(small_store, user, max(0, last - config.length), last)
        query = model.queries(model.states(batch.items, batch.offsets, batch.timestamps)[-1])
        if objective == "cl":
            query = normalize(query, dim=-1) / config.temperature
        scores = (weight @ query).double()
        target = int(small_store.sequence(user)[last])
        ranks.append(int((scores > scores[target]).sum()))
        nll.append(float(-scores.log_softmax(0)[target]))
    got, perplexity = last_item_ranks(model, small_store, config)
    assert got.tolist() == ranks
    assert perplexity == pytest.approx(np.exp(np.mean(nll)), rel=1e-4)
    metrics = artifact.json("metrics.json")
    assert metrics["perplexity"] == pytest.approx(perplexity, rel=1e-6) and metrics["users"] == len(ranks)
    for k in CUTOFFS:
        hits = [rank < k for rank in ranks]
        assert metrics[f"recall@{k}"] == pytest.approx(100 * np.mean(hits))
        gains = [1 / np.log2(rank + 2) if rank < k else 0.0 for rank in ranks]
        assert metrics[f"ndcg@{k}"] == pytest.approx(100 * np.mean(gains))


def test_ranking_metrics_by_hand():
    metrics = ranking_metrics(torch.tensor([0, 2, 9, 200]))
    assert [metrics[f"recall@{k}"] for k in CUTOFFS] == [25, 50, 75, 75, 75, 75]
    assert metrics["ndcg@1"] == 25 and metrics["ndcg@5"] == pytest.approx(100 * (1 + 1 / 2) / 4)


def test_popularity_ranks_by_training_interactions_ties_by_index(small_store):
    count = np.zeros(len(small_store.catalogue), int)
    for user in small_store.users("train"):
        np.add.at(count, small_store.sequence(user), 1)
    ranks = []
    for user in small_store.users("evaluation"):
        item = int(small_store.sequence(user)[-1])
        ranks.append(int((count > count[item]).sum() + (count[:item] == count[item]).sum()))
    assert popularity_metrics(small_store) == ranking_metrics(torch.tensor(ranks))


def test_an_encoder_learns(small_store, pretrain_config, tmp_path):
    artifact, _ = pretrain(small_store, pretrain_config(epochs=8), progress=False).build(tmp_path / "x")
    rows = [json.loads(line) for line in (artifact.path / "log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 8 and losses[-1] < losses[0] - 0.3
    metrics = artifact.json("metrics.json")
    assert metrics["perplexity"] < 0.8 * len(small_store.catalogue)


def test_a_finished_encoder_is_reused_and_equal_settings_give_equal_weights(small_store, pretrain_config, tmp_path):
    config = pretrain_config("sasrec", epochs=1)
    first, _ = pretrain(small_store, config, progress=False).build(tmp_path / "a")
    again, reused = pretrain(small_store, config, progress=False).build(tmp_path / "a")
    assert reused and again.manifest == first.manifest
    twin, reused = pretrain(small_store, config, progress=False).build(tmp_path / "b")
    assert not reused and twin.content == first.content
    other, _ = pretrain(small_store, replace(config, seed=1), progress=False).build(tmp_path / "c")
    assert other.content != first.content


def test_an_untrained_twin_has_the_weights_that_training_starts_from(small_store, pretrain_config, tmp_path):
    config = pretrain_config("hstu", epochs=1)
    twin, _ = pretrain(small_store, replace(config, train=False), progress=False).build(tmp_path / "twin")
    seed_everything(config.seed, torch.device("cpu"))
    start = UserEncoder.build(config.encoder, small_store.catalogue).state_dict()
    kept = load_file(twin.path / "model.safetensors")
    assert kept and all(torch.equal(kept[name], start[name]) for name in kept)
    assert twin.json("metrics.json")["steps"] == 0
    trained, _ = pretrain(small_store, config, progress=False).build(tmp_path / "trained")
    assert trained.json("metrics.json").keys() == twin.json("metrics.json").keys()
    assert trained.json("encoder.json") == twin.json("encoder.json") and trained.content != twin.content


def test_patience_stops_an_encoder_that_no_longer_improves(small_store, pretrain_config, tmp_path):
    optim = OptimConfig(lr=1e-9, epochs=9, checkpoint_seconds=1e9)
    config = pretrain_config(patience=2, optim=optim)
    artifact, _ = pretrain(small_store, config, progress=False).build(tmp_path / "x")
    assert artifact.json("metrics.json")["steps"] == 3 * len(training_batches(small_store, config, 0))
    rows = [json.loads(line) for line in (tmp_path / "x" / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows if "recall@10" in row] == [0, 1, 2]


@pytest.mark.parametrize("lr", [10.0, 1e3])  # a finite loss with an infinite perplexity; a loss that is no number
def test_a_diverging_encoder_is_a_failed_run(small_store, pretrain_config, tmp_path, lr):
    optim = OptimConfig(lr=lr, warmup=0.0, epochs=2, checkpoint_seconds=1e9)
    with pytest.raises(RunError, match=r"pretrain trm\+\+: the (loss|gradient|perplexity)") as error:
        pretrain(small_store, pretrain_config(optim=optim), progress=False).build(tmp_path / "x")
    assert "\n" not in str(error.value) and "lower lr" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_do_not_fit_are_named(small_store, pretrained, tmp_path):
    """A foreign or damaged file behind a manifest that was not checked."""
    shutil.copytree(pretrained["sl"].path, tmp_path / "x")
    copy = Artifact(tmp_path / "x", pretrained["sl"].manifest)
    (tmp_path / "x" / "model.safetensors").write_bytes(b"\x10")
    with pytest.raises(InputError, match=r"model\.safetensors does not fit the encoder"):
        load_encoder(copy, small_store)
    shutil.copy(pretrained["cl"].path / "model.safetensors", tmp_path / "x")
    with pytest.raises(InputError, match=r"model\.safetensors") as error:
        load_encoder(copy, small_store)
    assert "\n" not in str(error.value)


def test_weights_that_lack_a_tensor_are_named(small_store, pretrained, tmp_path):
    shutil.copytree(pretrained["sl"].path, tmp_path / "x")
    tensors = load_file(tmp_path / "x" / "model.safetensors")
    lost = next(name for name in tensors if "score_head" in name)
    del tensors[lost]
    save_file(tensors, tmp_path / "x" / "model.safetensors")
    with pytest.raises(InputError, match=lost):
        load_encoder(Artifact(tmp_path / "x", pretrained["sl"].manifest), small_store)


@pytest.mark.parametrize("encoder", ["sasrec", "hstu"])
def test_windows_longer_than_the_encoder_allows_are_named(small_store, pretrain_config, tmp_path, encoder):
    shape = replace(pretrain_config(encoder).encoder, overrides={"max_len": 16})
    config = replace(pretrain_config(encoder), encoder=shape)
    with pytest.raises(InputError, match="has 24 items.*max_len = 16"):
        pretrain(small_store, config, progress=False).build(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_encoder_json_says_what_was_built(pretrained):
    assert read_json(pretrained["cl"].path / "encoder.json")["encoder"] == "hstu"
