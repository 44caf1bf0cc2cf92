"""Files that are not as they were written, named in one sentence."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from uqabench.artifact import content_hash
from uqabench.files import sha256_file


def spoil(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "truncate":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2] ^= 0xFF
    file.chmod(0o644)
    file.write_bytes(data)


@pytest.mark.parametrize("how", ["truncate", "flip"])
@pytest.mark.parametrize(
    "name",
    [
        "questions/methods/evaluation.arrow",
        "pretrain/sasrec/model.safetensors",
        "states/sasrec-mean/pooled.npy",
        "align/sasrec/adapter.safetensors",
        "align/sasrec/llm/model.safetensors",
        "lm/trained/model/tokenizer.json",
        "evaluate/majority/predictions.jsonl",
    ],
)
def test_a_corrupted_file_is_named(done, run, name, how, expect, debris, stage_folder):
    stage, label, *rest = name.split("/")
    spoil(stage_folder(done, stage, label).joinpath(*rest), how)
    code = 1 if label == "majority" else 2  # the other method is finished
    pattern = rf"{label}-\w+/{'/'.join(rest)} is missing or changed since it was written: delete .*run"
    expect(run(methods="sasrec,majority"), code, pattern)
    assert not debris(done)


@pytest.mark.parametrize("name", ["interactions.arrow", "catalogue/items.arrow", "users.arrow"])
def test_a_corrupted_store_is_named(run, small_store, tmp_path, name, expect):
    shutil.copytree(small_store.path, tmp_path / "store")
    source = ("--source", "store", "--path", "store")
    spoil(tmp_path / "store" / name, "truncate")
    expect(run(source=source), 2, rf"store/{name} is missing or changed since it was written: delete")
    shutil.copy(small_store.path / name, tmp_path / "store" / name)
    spoil(tmp_path / "store" / name, "flip")
    expect(run(source=source), 2, rf"store/{name} is missing or changed since it was written: delete")


def test_items_past_the_table_are_named(run, small_store, tmp_path, expect):
    items = small_store.items.copy()
    items[7] = len(small_store.catalogue)
    shutil.copytree(small_store.path, tmp_path / "store")
    replace(small_store, items=items).write_files(tmp_path / "store")
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    files = {name: sha256_file(tmp_path / "store" / name) for name in manifest["files"]}
    (tmp_path / "store" / "manifest.json").write_text(
        json.dumps({**manifest, "files": files, "content": content_hash(files)})
    )
    expect(run(source=("--source", "store", "--path", "store")), 2, r"store: .*items past the catalogue's \d+")


def test_a_store_of_another_version_is_named(run, small_store, tmp_path, expect):
    shutil.copytree(small_store.path, tmp_path / "store")
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    (tmp_path / "store" / "manifest.json").write_text(json.dumps({**manifest, "format": 0}))
    expect(run(source=("--source", "store", "--path", "store")), 2, "store was written by another version")


def test_an_artefact_of_another_version_is_named(done, run, expect, stage_folder):
    path = stage_folder(done, "pretrain", "sasrec") / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))
    expect(run(), 2, r"pretrain/sasrec-\w+ was written by another version of uqabench: delete it")


def test_a_language_model_with_a_damaged_file_is_named(done, run, tmp_path, expect, debris, stage_folder):
    shutil.copytree(stage_folder(done, "lm", "trained") / "model", tmp_path / "model")
    spoil(tmp_path / "model" / "model.safetensors", "truncate")
    expect(run("--llm", "./model"), 2, r"model/model\.safetensors is damaged or truncated")
    assert not debris(tmp_path)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ('{"id": 0}\n', "line 1"),
        ('{"id": 0, "user"', "line 1"),
        ("", "holds no predictions"),
    ],
)
def test_a_predictions_file_that_cannot_be_scored(call, tmp_path, text, pattern, expect):
    (tmp_path / "p.jsonl").write_text(text)
    expect(call("score", tmp_path / "p.jsonl"), 2, rf"p\.jsonl.*{pattern}")
    expect(call("score", tmp_path / "missing.jsonl"), 2, "missing.jsonl")


def test_a_folder_without_a_run(call, tmp_path, expect):
    expect(call("questions", "show", tmp_path, 0), 2, "config.json does not exist: run the stage")
