"""The store on disk: round trip, views, and every way in which its files can be wrong."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from uqabench.artifact import content_hash
from uqabench.data import ATTRIBUTES, Catalogue, InteractionStore, describe
from uqabench.data.arrow import map_arrow, write_arrow
from uqabench.data.facts import facts_by_hand
from uqabench.data.store import STORE_FILES
from uqabench.errors import InputError
from uqabench.files import folder_files, sha256_file

FILES = [
    "offsets.arrow",
    "users.arrow",
    "interactions.arrow",
    "truth.arrow",
    "rejected.jsonl",
    "store.json",
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
    given = {"questions_train.arrow", "questions_evaluation.arrow"}  # where questions came with the data
    assert found == {*FILES, "manifest.json", "seconds.json"} == STORE_FILES - given


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
    with pytest.raises(InputError, match=f"{name} is missing or changed since it was written: delete"):
        InteractionStore.open(folder)


def seal(folder, **changes):
    """Rewrite the manifest so that it names the files as they are now, as a forger would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {name: sha256_file(folder / name) for name in folder_files(folder) if name != "manifest.json"}
    (folder / "manifest.json").write_text(
        json.dumps({**manifest, "files": files, "content": content_hash(files), **changes})
    )


@pytest.mark.parametrize("name", [file for file in FILES if file.endswith(".arrow") and file != "truth.arrow"])
def test_truncation_is_seen_without_digests(folder, name):
    """A manifest that was rewritten to match a broken file does not get the file through."""
    content = (folder / name).read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 1):
        (folder / name).write_bytes(content[:size])
        seal(folder)
        with pytest.raises(InputError, match=f"{name} is truncated or corrupted: run"):
            InteractionStore.open(folder)


OPEN = """
import sys
from uqabench.data import InteractionStore
from uqabench.errors import InputError
for folder in sys.argv[1:]:
    try:
        store = InteractionStore.open(folder)
    except InputError as error:
        assert len(str(error)) < 400, error
    else:
        store.user_ids, store.catalogue.item_ids, store.catalogue.values, store.catalogue.vocabulary
    print("survived")
"""


def test_no_flipped_byte_crashes_the_process(folder, tmp_path):
    """Offsets of strings and lists that point out of the file are refused, not followed, digest or not."""
    rng = np.random.default_rng(0)
    folders = []
    for name in [file for file in FILES if file.endswith(".arrow") and file != "truth.arrow"]:
        content = (folder / name).read_bytes()
        for trial in range(4):
            altered = bytearray(content)
            for place in rng.integers(0, len(content), 1 if trial else len(content) // 16):
                altered[place] ^= int(rng.integers(1, 256))
            folders.append(tmp_path / f"{name.replace('/', '-')}-{trial}")
            shutil.copytree(folder, folders[-1])
            (folders[-1] / name).write_bytes(altered)
            seal(folders[-1])
    done = subprocess.run([sys.executable, "-c", OPEN, *folders], capture_output=True, text=True)
    assert (done.returncode, done.stdout.count("survived")) == (0, len(folders)), done.stderr


def test_a_string_offset_out_of_range_is_named(folder):
    """The offsets of the strings are changed, nothing else: the file is Arrow and whole."""
    path = folder / "users.arrow"
    users = map_arrow(path, {})
    offsets = np.frombuffer(users["user_id"].buffers()[1], np.int32)
    content = bytearray(path.read_bytes())
    start = content.index(offsets.tobytes())
    content[start + 20 : start + 24] = np.int32(2**30).tobytes()
    path.write_bytes(content)
    seal(folder)
    with pytest.raises(InputError, match="users.arrow is truncated or corrupted"):
        InteractionStore.open(folder)


def test_data_changed_together_with_the_digests_are_told_by_the_content_hash(folder):
    rows = map_arrow(folder / "interactions.arrow", {})
    items = rows["item"].to_numpy()[::-1].copy()
    write_arrow(folder / "reversed.arrow", {**rows, "item": items})
    (folder / "reversed.arrow").rename(folder / "interactions.arrow")
    seal(folder)
    with pytest.raises(InputError, match="'content_hash' is not that of the files"):
        InteractionStore.open(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 0}, "written by another version"),
        ({"format": None}, "written by another version"),
        ({"stage": "align"}, "holds the stage 'align', not 'data'"),
        ({"stage": None}, "'stage' is missing or of another type"),
        ({"content": None}, "'content' is missing or of another type"),
        ({"files": None}, "'files' is missing or of another type"),
        ({"files": []}, "'files' is missing or of another type"),
        ({"files": {}}, "'content' is not that of the files"),
        ({"files": {}, "content": content_hash({})}, "lacks the file 'catalogue/brand.arrow'"),
        ({"files": {"users.arrow": 3}}, "'files' is no list of digests"),
        ({"files": {"../users.arrow": "0"}}, "'files' is no list of digests"),
        ({"files": {"/etc/passwd": "0"}}, "'files' is no list of digests"),
        ({"files": {"users.arrow": ""}}, "users.arrow is missing or changed"),
    ],
)
def test_manifests_of_other_makes(folder, changes, words):
    seal(folder, **changes)
    with pytest.raises(InputError, match=words):
        InteractionStore.open(folder)


def paths(value, path=()):
    """The place of every value inside a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from paths(inner, (*path, key))


def test_every_field_of_store_json_that_is_read_is_checked(folder):
    """Each one removed, and each one of another type: never a KeyError later on."""
    facts = json.loads((folder / "store.json").read_text())
    unread = 0
    for path in paths(facts):
        for change in ("removed", None, [3], {"a": 1}):
            altered = copy.deepcopy(facts)
            inner = altered
            for key in path[:-1]:
                inner = inner[key]
            if change == "removed":
                del inner[path[-1]]
            else:
                inner[path[-1]] = change
            (folder / "store.json").write_text(json.dumps(altered))
            seal(folder)
            try:
                store = InteractionStore.open(folder)
            except InputError as error:
                assert "store.json: '" in str(error) and len(str(error)) < 400
            else:
                if "read" in store.manifest["counts"]:
                    describe(store)
                assert store.manifest["counts"]["all"]["users"] and store.content_hash and store.split_hash
                assert path[0] in ("source", "config", "rejected", "counts")
                unread += 1
    assert unread


def test_no_folder_and_broken_manifest(folder, tmp_path):
    with pytest.raises(InputError, match="not a prepared data folder"):
        InteractionStore.open(tmp_path / "nowhere")
    (folder / "manifest.json").write_text('{"artefact": "inter')
    with pytest.raises(InputError, match="manifest.json is not readable JSON"):
        InteractionStore.open(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match="manifest.json does not exist"):
        InteractionStore.open(folder)


UNFIT = [
    ({"items": np.full(31, 31, np.int32)}, "past the catalogue's 31"),
    ({"items": np.full(31, -1, np.int32)}, "past the catalogue's 31"),
    ({"offsets": np.array([0, 1, 8, 2, 28, 31])}, "offsets do not rise"),
    ({"offsets": np.array([0, 0, 1, 8, 28, 30])}, "offsets do not rise"),
    ({"split": np.zeros(4, np.int8), "user_ids": ["u"] * 4}, "one row for each of the 5 users"),
    ({"split": np.array([0, 0, 1, 0, 4], np.int8)}, "a split that is none of 0, 1, 2 and 3"),
    ({"actions": np.full(31, 2, np.int8), "manifest": {"actions": ["view", "buy"]}}, "actions past the 2 names"),
]


@pytest.mark.parametrize(("changes", "words"), UNFIT)
def test_columns_that_do_not_fit(ragged_store, changes, words, tmp_path):
    """Refused when written, and, where someone else wrote them, when opened."""
    broken = replace(ragged_store, **changes)
    with pytest.raises(InputError, match=words):
        broken.save(tmp_path / "store")
    assert not (tmp_path / "store").exists()
    ragged_store.save(tmp_path / "store")
    for file in (tmp_path / "store").glob("*.arrow"):
        file.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uqabench.data.store.facts_by_hand", lambda store: facts_by_hand(ragged_store))
        broken.write_files(tmp_path / "store")
    seal(tmp_path / "store")
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
    with pytest.raises(InputError, match="column 'item' should be int32 and is int64"):
        map_arrow(tmp_path / "x.arrow", {}, {"item": pa.int32()})
    assert list(map_arrow(tmp_path / "x.arrow", {}, {"time": pa.int32()})) == ["item"]
    with pytest.raises(InputError, match="y.arrow is missing"):
        map_arrow(tmp_path / "y.arrow", {})
    write_arrow(tmp_path / "z.arrow", {"item": pa.array([1, None])})
    with pytest.raises(InputError, match="column 'item' has nulls"):
        map_arrow(tmp_path / "z.arrow", {"item": pa.int64()})
