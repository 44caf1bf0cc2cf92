"""Folders of encoder weights: brought in, begun from, and refused where they do not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from uqabench.data import InteractionStore, PrepareConfig, open_source, prepare
from uqabench.encoders import UserEncoder
from uqabench.encoders.published import to_published
from uqabench.errors import InputError
from uqabench.settings.encoders import UserEncoderConfig
from uqabench.settings.stages import PretrainConfig
from uqabench.stages.encoder_weights import export_checkpoint, import_checkpoint
from uqabench.stages.pretrain import pretrain

ENCODER = UserEncoderConfig(encoder="gru4rec", preset="tiny")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> InteractionStore:
    source = open_source("synthetic", users=30, items=40, categories=5, mean_length=20.0, seed=1)
    return prepare(source, tmp_path_factory.mktemp("data") / "store", PrepareConfig(), progress=False)


@pytest.fixture
def file(store, tmp_path):
    """Published weights of GRU4Rec for the store."""
    torch.manual_seed(9)
    torch.save(to_published(UserEncoder.build(ENCODER, store.catalogue), store.catalogue, "gru4rec"), tmp_path / "e.pt")
    return tmp_path / "e.pt"


def test_a_run_begins_with_imported_weights(store, file, tmp_path):
    config = import_checkpoint(file, store, tmp_path / "weights")
    imported = load_file(tmp_path / "weights" / "model.safetensors")
    settings = PretrainConfig(encoder=config, length=32, checkpoint=str(tmp_path / "weights"), train=False)
    artifact, _ = pretrain(store, settings, progress=False).build(tmp_path / "kept")
    kept = load_file(artifact.path / "model.safetensors")
    assert kept.keys() == imported.keys() and all(torch.equal(kept[name], imported[name]) for name in kept)
    fresh, _ = pretrain(store, replace(settings, checkpoint=None), progress=False).build(tmp_path / "fresh")
    begun = load_file(fresh.path / "model.safetensors")
    assert not torch.equal(begun["tower.item_table.weight"], kept["tower.item_table.weight"])
    assert export_checkpoint(artifact.path, store, tmp_path / "again.pt") == len(torch.load(file, weights_only=True))


def test_other_weights_are_another_stage(store, file, tmp_path):
    config = import_checkpoint(file, store, tmp_path / "weights")
    settings = PretrainConfig(encoder=config, length=32, checkpoint=str(tmp_path / "weights"))
    before = pretrain(store, settings, progress=False).key
    state = torch.load(file, weights_only=True)
    state["proj2.bias"] += 1
    torch.save(state, file)
    import_checkpoint(file, store, tmp_path / "weights")
    assert pretrain(store, settings, progress=False).key != before


def test_what_does_not_fit_is_refused(store, file, tmp_path):
    import_checkpoint(file, store, tmp_path / "weights")
    settings = PretrainConfig(encoder=ENCODER, length=32, checkpoint=str(tmp_path / "weights"))
    other = replace(settings, encoder=UserEncoderConfig(encoder="gru4rec", preset="tiny", overrides={"hidden": 50}))
    with pytest.raises(InputError, match="has shape .* there and .* in this encoder"):
        pretrain(store, other, progress=False).build(tmp_path / "out")
    with pytest.raises(InputError, match="holds no model.safetensors"):
        pretrain(store, replace(settings, checkpoint=str(tmp_path)), progress=False)
    source = open_source("synthetic", users=30, items=40, categories=5, mean_length=20.0, seed=2)
    elsewhere = prepare(source, tmp_path / "elsewhere", PrepareConfig(), progress=False)
    with pytest.raises(InputError, match="was imported for other data"):
        pretrain(elsewhere, settings, progress=False).build(tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(InputError, match="holds 'notes.txt'"):
        import_checkpoint(file, store, tmp_path / "mine")
    (tmp_path / "weights" / "model.safetensors").write_bytes(b"noise")
    with pytest.raises(InputError, match="cannot be read as weights"):
        pretrain(store, settings, progress=False).build(tmp_path / "out")
