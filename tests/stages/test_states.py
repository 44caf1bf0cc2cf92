"""Frozen states against encoding every history by itself."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from uqabench.encoders.registry import register
from uqabench.errors import InputError, RunError
from uqabench.integrations import Integration, Pooling, find_integration, window_means
from uqabench.stages import states as states_module
from uqabench.stages.packed import TorchBatch
from uqabench.stages.pretrain import pretrain
from uqabench.stages.states import FrozenStates, HistoryPairs, SharedPass, encode_histories, load_encoder

MEAN, STATES = find_integration("mean-pooling"), find_integration("q-former")


@register("test-both-ways")
class BothWays(nn.Module):
    """An encoder in which every state depends on the whole sequence: cuts of a user may share no pass."""

    causal = False

    def __init__(self, width):
        super().__init__()
        self.width, self.mix = width, nn.Linear(width, width)

    def forward(self, x, offsets, timestamps=None):
        parts = [part + part.mean(0) for part in x.split(offsets.diff().tolist())]
        return self.mix(torch.cat(parts))


class Three(Integration):
    """A pooling of three vectors: the mean of all and of the last seven states, and the first state."""

    @staticmethod
    def pool(states, offsets):
        return torch.cat([window_means(None, 7)(states, offsets), states[offsets[:-1], None]], dim=1)

    pooling = Pooling("three", 3, pool.__func__)

    def n_tokens(self, settings):
        return 3

    def build(self, width, llm_width, token_rms, settings):
        return nn.Linear(width, llm_width)


@pytest.fixture(scope="module")
def both_ways(small_store, pretrain_config, tmp_path_factory):
    config = pretrain_config("test-both-ways", epochs=1)
    return pretrain(small_store, config, progress=False).build(tmp_path_factory.mktemp("both") / "x")[0]


@pytest.fixture(scope="module")
def pairs(small_train, small_evaluation):
    return HistoryPairs.of([small_train, small_evaluation])


def alone(model, store, user, start, cut):
    """States (cut − start, width) of one history, encoded by itself."""
    batch = TorchBatch.pack(store, np.array([user]), np.array([start]), np.array([cut]), torch.device("cpu"))
    with torch.no_grad():
        return model.states(batch.items, batch.offsets, batch.timestamps)


@pytest.mark.parametrize("name", ["sl", "cl", "both-ways"])
@pytest.mark.parametrize("token_budget", [50, 4096])
def test_every_history_is_as_if_encoded_alone(small_store, pretrained, both_ways, pairs, tmp_path, name, token_budget):
    artifact = both_ways if name == "both-ways" else pretrained[name]
    integrations = {"states": STATES, "pooled": MEAN, "three": Three()}
    frozen = {}
    for kept, integration in integrations.items():
        built, _ = encode_histories(
            small_store, artifact, pairs,
            integration=integration, token_budget=token_budget, progress=False,
        ).build(tmp_path / kept)  # fmt: skip
        frozen[kept] = FrozenStates.open(built)
    model = load_encoder(artifact, small_store)
    assert all(found.width == model.width and len(found.pairs) == len(pairs) for found in frozen.values())
    assert frozen["pooled"].pooled.shape[1] == 1 and frozen["three"].pooled.shape[1] == 3
    for pair in range(0, len(pairs), 5):
        expected = alone(model, small_store, *(int(c[pair]) for c in (pairs.users, pairs.starts, pairs.cuts)))
        begin, end = frozen["states"].spans[pair]
        states = torch.from_numpy(np.array(frozen["states"].states[begin:end]))
        torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-5)
        # Pooling adds no difference of its own to what a pass of other histories' neighbours rounds.
        pooled = torch.from_numpy(np.array(frozen["pooled"].pooled[pair, 0]))
        assert torch.equal(pooled, states.mean(0))
        three = torch.from_numpy(np.array(frozen["three"].pooled[pair]))
        assert torch.equal(three, torch.stack([states.mean(0), states[-7:].mean(0), states[0]]))


POOLED = {"mean": MEAN, "three": Three(), "next": find_integration("segments+next")}


@pytest.mark.parametrize("first", ["mean", "three", "states"])
def test_one_pass_pools_for_all_the_same_bytes(small_store, pretrained, pairs, tmp_path, monkeypatch, first):
    integrations = {**POOLED, "states": STATES}
    shared, passes = SharedPass(), []
    for integration in integrations.values():
        shared.ask(integration)
    encode = states_module._encode
    monkeypatch.setattr(states_module, "_encode", lambda *given: passes.append(given) or encode(*given))

    def build(name, folder, **more):
        stage = encode_histories(
            small_store, pretrained["sl"], pairs, integration=integrations[name], token_budget=500, progress=False,
            **more,
        )  # fmt: skip
        return stage.build(folder / name)[0]

    together = {name: build(name, tmp_path / "together", shared=shared) for name in (first, *POOLED)}
    assert len(passes) == 1 and not shared.pooled
    assert all(artifact.seconds >= round(shared.seconds, 3) > 0 for artifact in together.values())
    for name, artifact in together.items():
        single = build(name, tmp_path / "alone")
        assert single.manifest["key"] == artifact.manifest["key"] and single.content == artifact.content


def test_what_would_take_much_memory_is_not_pooled_beside(small_store, pretrained, pairs, monkeypatch):
    shared = SharedPass()
    shared.ask(MEAN), shared.ask(Three()), shared.ask(STATES)
    size = 4 * 100 * 32 * 3
    monkeypatch.setattr(states_module, "SHARED_BYTES", size)
    assert list(shared.others("mean", 100, 32)) == ["three"] and shared.others("mean", 101, 32) == {}


def test_states_do_not_depend_on_what_follows_the_cut(small_store, pretrained, pairs, tmp_path):
    items = small_store.items.copy()
    for user, cut in zip(pairs.users, pairs.cuts, strict=True):
        later = pairs.cuts[pairs.users == user].max()
        begin, end = int(small_store.offsets[user]) + int(later), int(small_store.offsets[user + 1])
        items[begin:end] = (small_store.items[begin:end] + 1) % len(small_store.catalogue)
        assert cut <= later
    changed = replace(small_store, items=items)
    pooled = []
    for name, store in (("a", small_store), ("b", changed)):
        built, _ = encode_histories(
            store, pretrained["sl"], pairs, integration=MEAN, token_budget=999, progress=False
        ).build(tmp_path / name)
        pooled.append(np.array(FrozenStates.open(built).pooled))
    assert (items != small_store.items).any()
    np.testing.assert_array_equal(*pooled)


def test_a_causal_encoder_passes_a_user_once(small_store, pretrained, both_ways, pairs, tmp_path):
    """Where windows begin at the same item; another start needs another pass, and so does any cut without causality."""
    sizes = {}
    for name, artifact in (("causal", pretrained["sl"]), ("not", both_ways)):
        built, _ = encode_histories(
            small_store, artifact, pairs, integration=STATES, token_budget=999, progress=False
        ).build(tmp_path / name)
        sizes[name] = len(FrozenStates.open(built).states)
    windows = {}
    for user, start, cut in zip(pairs.users, pairs.starts, pairs.cuts, strict=True):
        windows[user, start] = max(cut, windows.get((user, start), 0))
    assert sizes["causal"] == sum(cut - start for (_, start), cut in windows.items())
    assert sizes["not"] == (pairs.cuts - pairs.starts).sum() > sizes["causal"]


def test_pooled_vectors_alone_take_less_room_and_are_reused(small_store, pretrained, pairs, tmp_path):
    def encode():
        return encode_histories(
            small_store, pretrained["sl"], pairs, integration=MEAN, token_budget=999, progress=False
        ).build(tmp_path / "x")

    built, reused = encode()
    frozen = FrozenStates.open(built)
    assert not reused and frozen.states is None and frozen.spans is None
    assert isinstance(frozen.pooled, np.memmap) and frozen.pooled.shape == (len(pairs), 1, frozen.width)
    assert np.load(built.path / "pooled.npy").shape == (len(pairs), frozen.width)
    again, reused = encode()
    assert reused and again.content == built.content


def test_keys_find_each_questions_history(small_train, small_evaluation, pairs):
    for questions in (small_train, small_evaluation):
        keys = pairs.keys(questions)
        assert (pairs.users[keys] == questions.user).all() and (pairs.cuts[keys] == questions.cut).all()
        assert (pairs.starts[keys] == np.maximum(0, questions.cut - questions.n_history)).all()
    assert len(np.unique(np.stack([pairs.users, pairs.cuts]), axis=1).T) == len(pairs)


def test_each_question_set_keeps_its_own_history(small_train, small_evaluation):
    """Training with another N than evaluation: the encoder sees what the truth was computed from."""
    shorter = replace(small_evaluation, n_history=12)
    pairs = HistoryPairs.of([small_train, shorter])
    for questions in (small_train, shorter):
        keys = pairs.keys(questions)
        assert (pairs.starts[keys] == np.maximum(0, questions.cut - questions.n_history)).all()
    with pytest.raises(InputError, match="user .*, cut .*: two question sets .* 24 and 12"):
        HistoryPairs.of([small_train, replace(small_train, n_history=12)])


def test_a_full_disk_is_noticed_before_the_mapped_file_is_written(
    small_store, pretrained, pairs, tmp_path, monkeypatch
):
    """A write into a mapping past the disk's end is a signal that kills the process, not an error."""

    def full(fd, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RunError, match="The disk is full while writing .*x"):
        encode_histories(
            small_store, pretrained["sl"], pairs, integration=MEAN, token_budget=999, progress=False
        ).build(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
