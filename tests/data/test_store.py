"""The store on disk: round trip, views, and every way in which its files can be wrong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from uqabench.data import ATTRIBUTES, Catalogue, InteractionStore
from uqabench.data.arrow import map_arrow, write_arrow
from uqabench.errors import InputError

FILES = [
    "offsets.arrow",
    "users.arrow",
    "interactions.arrow",
    "truth.arrow",
    "rejected.jsonl",
    "catalogue/items.arrow",
    "catalogue/vocabulary.arrow",
    *(f"catalogue/{name}.arrow" for name in ATTRIBUTES),
]


@pytest.fixture
def folder(synthetic_store, tmp_path):
    shutil.copytree(synthetic_store.path, tmp_path / "copy")
    return tmp_path / "copy"


def test_files_are_those_listed(folder):
    found = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert found == {*FILES, "manifest.json"}


def test_round_trip(synthetic_store, tmp_path):
    store = replace(synthetic_store, actions=np.arange(len(synthetic_store.items), dtype=np.int64).astype(np.int8))
    store.save(tmp_path / "again")
    again = InteractionStore.open(tmp_path / "again")
    for name in ("offsets", "items", "timestamps", "actions", "split"):
        ours, theirs = getattr(store, name), getattr(again, name)
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs), name
    assert again.user_ids == store.user_ids and again.split_hash == store.split_hash
    for name in ATTRIBUTES:
        assert again.catalogue.values[name] == store.catalogue.values[name]
        assert np.array_equal(again.catalogue.codes[name], store.catalogue.codes[name])
        for ours, theirs in zip(store.catalogue.tokens[name], again.catalogue.tokens[name], strict=True):
            assert np.array_equal(ours, theirs) and ours.dtype == theirs.dtype
    assert again.catalogue.token_vocab_size == store.catalogue.token_vocab_size > 0


def test_dtypes_are_the_documented_ones(synthetic_store):
    store = synthetic_store
    kinds = {name: getattr(store, name).dtype.name for name in ("offsets", "items", "timestamps", "split")}
    assert kinds == {"offsets": "int64", "items": "int32", "timestamps": "int64", "split": "int8"}
    assert store.actions is None
    assert store.catalogue.popularity.dtype == np.int64
    assert all(codes.dtype == np.int32 for codes in store.catalogue.codes.values())


def test_columns_are_mapped_and_sequences_are_views(synthetic_store):
    assert not synthetic_store.items.flags.owndata and not synthetic_store.items.flags.writeable
    assert np.shares_memory(synthetic_store.sequence(1), synthetic_store.items)


def test_basket_starts(synthetic_store, ragged_store):
    store = synthetic_store
    for user in range(len(store)):
        times = store.timestamps[store.offsets[user] : store.offsets[user + 1]]
        assert store.basket_starts(user).tolist() == [i == 0 or times[i] != times[i - 1] for i in range(len(times))]
    assert not store.basket_starts(0).all()
    assert ragged_store.basket_starts(0).tolist() == []
    assert replace(store, timestamps=None).basket_starts(0).all()


def test_users_and_lengths(ragged_store):
    assert ragged_store.users("train").tolist() == [0, 1, 3]
    assert ragged_store.users("evaluation").tolist() == [2, 4]
    assert ragged_store.users(None).tolist() == [0, 1, 2, 3, 4]
    assert ragged_store.lengths.tolist() == [0, 1, 7, 20, 3]
    with pytest.raises(InputError, match="no split 'test'"):
        ragged_store.users("test")
    with pytest.raises(InputError, match="User 5 is past"):
        ragged_store.sequence(5)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "short", "altered"])
def test_a_damaged_file_is_named(folder, name, damage):
    file = folder / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "short":
        file.write_bytes(content[: len(content) // 2])
    elif content:
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :])
    if file.exists() and file.read_bytes() == content:  # no bad row, so the list is empty in the first place
        assert name == "rejected.jsonl"
        return
    with pytest.raises(InputError, match=f"{name}.*prepare"):
        InteractionStore.open(folder)


@pytest.mark.parametrize("name", [file for file in FILES if file.endswith(".arrow") and file != "truth.arrow"])
def test_truncation_is_seen_without_digests(folder, name):
    """A manifest that was rewritten to match a broken file does not get the file through."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"][name]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    content = (folder / name).read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 1):
        (folder / name).write_bytes(content[:size])
        with pytest.raises(InputError, match=f"{name} is truncated or corrupted"):
            InteractionStore.open(folder)


def change_manifest(folder, **changes):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format_version": 0}, "format version 0, this program reads 1"),
        ({"format_version": None}, "format version None"),
        ({"artefact": "language-model"}, "does not describe prepared data"),
        ({"files": None}, "lacks 'files' or 'split_hash'"),
        ({"files": {"users.arrow": 3}}, "lacks 'files' or 'split_hash'"),
        ({"files": {"users.arrow": {}}}, "users.arrow"),
        ({"split_hash": 7}, "lacks 'files' or 'split_hash'"),
    ],
)
def test_manifests_of_other_makes(folder, changes, words):
    change_manifest(folder, **changes)
    with pytest.raises(InputError, match=words):
        InteractionStore.open(folder)


def test_no_folder_and_broken_manifest(folder, tmp_path):
    with pytest.raises(InputError, match="not a prepared data folder"):
        InteractionStore.open(tmp_path / "nowhere")
    (folder / "manifest.json").write_text('{"artefact": "inter')
    with pytest.raises(InputError, match="manifest.json is not readable JSON"):
        InteractionStore.open(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match="manifest.json does not exist"):
        InteractionStore.open(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"items": np.full(31, 31, np.int32)}, "past the catalogue's 31"),
        ({"items": np.full(31, -1, np.int32)}, "past the catalogue's 31"),
        ({"offsets": np.array([0, 1, 8, 2, 28, 31])}, "offsets do not rise"),
        ({"offsets": np.array([0, 0, 1, 8, 28, 30])}, "offsets do not rise"),
        ({"split": np.zeros(4, np.int8), "user_ids": ["u"] * 4}, "one row for each of the 5 users"),
    ],
)
def test_columns_that_do_not_fit(ragged_store, changes, words, tmp_path):
    replace(ragged_store, **changes).save(tmp_path / "store")
    with pytest.raises(InputError, match=words):
        InteractionStore.open(tmp_path / "store")


def test_catalogue_codes_past_their_table(synthetic_store, tmp_path):
    catalogue = synthetic_store.catalogue
    codes = {**catalogue.codes, "brand": catalogue.codes["brand"] + 1000}
    replace(catalogue, codes=codes).save(tmp_path / "catalogue")
    with pytest.raises(InputError, match="items.arrow: column 'brand' holds ids outside"):
        Catalogue.open(tmp_path / "catalogue")
    with pytest.raises(InputError, match="no attribute 'colour'"):
        catalogue.text("colour", 0)
    with pytest.raises(InputError, match="Code -1 is past"):
        catalogue.text("brand", -1)


def test_an_arrow_file_with_other_columns(tmp_path):
    write_arrow(tmp_path / "x.arrow", {"item": np.arange(3)})
    with pytest.raises(InputError, match="column 'item' should be int32 and is int64"):
        map_arrow(tmp_path / "x.arrow", {"item": pa.int32()})
    with pytest.raises(InputError, match="column 'user' should be int32 and is no such column"):
        map_arrow(tmp_path / "x.arrow", {"user": pa.int32()})
    with pytest.raises(InputError, match="y.arrow is missing"):
        map_arrow(tmp_path / "y.arrow", {})
