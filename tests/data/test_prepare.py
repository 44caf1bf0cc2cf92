"""From a log to a store: what is written, what is reused, and what stays out of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from uqabench.artifact import build, open_artifact
from uqabench.data import InteractionStore, PrepareConfig, describe, open_source, prepare, read_ids
from uqabench.data.facts import check_facts
from uqabench.data.prepare import prepare_key, write_store
from uqabench.data.split import split_users
from uqabench.errors import InputError
from uqabench.files import read_json

ALL = PrepareConfig(min_item_interactions=1, min_user_length=1)


def test_store_holds_the_log(plain_log, tmp_path):
    store = prepare(open_source("tables", **plain_log), tmp_path / "store", ALL, progress=False)
    assert len(store) == 10 and len(store.catalogue) == 8
    names = store.catalogue.item_ids.tolist()
    assert names == [f"i{i}" for i in range(8)]
    order = [int(store.timestamps[store.offsets[row]]) for row in range(10)]  # user-u's first time is u
    assert sorted(order) == list(range(10)) and order != list(range(10))
    for row, user in enumerate(order):
        assert [names[item] for item in store.sequence(row)] == [f"i{(user + t) % 8}" for t in range(8)]
        assert store.timestamps[store.offsets[row] : store.offsets[row + 1]].tolist() == [
            1000 * t + user for t in range(8)
        ]
    catalogue = store.catalogue
    assert catalogue.attributes() == ("title", "category")
    assert [catalogue.text("category", code) for code in catalogue.codes["category"]] == ["even", "odd"] * 4
    assert catalogue.text("title", catalogue.codes["title"][3]) == "Thing number 3"
    assert (catalogue.codes["brand"] == -1).all()
    assert catalogue.popularity.tolist() == [9] * 8  # of nine training users; the tenth evaluates
    offsets, ids = catalogue.tokens["title"]
    assert [catalogue.vocabulary[i] for i in ids[offsets[3] : offsets[4]]] == ["thing", "number", "3"]


def test_popularity_counts_training_users_only(synthetic_store):
    store = synthetic_store
    expected = np.zeros(len(store.catalogue), int)
    for user in store.users("train"):
        np.add.at(expected, store.sequence(user), 1)
    assert store.catalogue.popularity.tolist() == expected.tolist()
    assert set(store.users("train")) | set(store.users("evaluation")) == set(range(len(store)))
    assert not set(store.users("train")) & set(store.users("evaluation"))


def test_manifest_counts_and_table(plain_log, tmp_path):
    config = PrepareConfig(min_item_interactions=1, min_user_length=1, exclude_categories=["odd"], max_sequence=3)
    store = prepare(open_source("tables", **plain_log), tmp_path / "store", config, progress=False)
    counts = store.manifest["counts"]
    assert counts["read"] == {"users": 10, "items": 8, "interactions": 80}
    assert [counts[side]["users"] for side in ("all", "train", "evaluation")] == [10, 9, 1]
    assert [counts[side]["interactions"] for side in ("all", "train", "evaluation")] == [30, 27, 3]
    assert counts["all"]["max_length"] == 3
    table = describe(store)
    steps = {row["step"]: row for row in table}
    assert list(steps) == [
        "as read",
        "categories excluded by name",
        "older than a user's last 3 interactions",
        "kept",
        "training users",
        "evaluation users",
    ]
    for name in ("users", "items", "interactions"):
        removed = sum(row[name] for row in table[1:-3])
        assert steps["as read"][name] + removed == steps["kept"][name]


def test_validation_users_change_nothing_for_evaluation(plain_log, tmp_path):
    stores = {}
    for fraction in (0.0, 0.4):
        config = replace(ALL, evaluation_fraction=0.3, validation_fraction=fraction)
        stores[fraction] = prepare(open_source("tables", **plain_log), tmp_path / str(fraction), config, progress=False)
    two, three = stores.values()
    assert three.users("evaluation").tolist() == two.users("evaluation").tolist() and three.held_out == "validation"
    assert sorted([*three.users("train"), *three.users("validation")]) == two.users("train").tolist()
    assert two.held_out == "evaluation" and two.users("validation").tolist() == []
    for column in ("items", "timestamps", "offsets"):
        assert getattr(two, column).tolist() == getattr(three, column).tolist()
    assert two.catalogue.popularity.tolist() == three.catalogue.popularity.tolist()
    assert two.evaluation_hash == two.split_hash == three.evaluation_hash != three.split_hash
    assert two.content_hash != three.content_hash
    seen = three.about("evaluation")
    assert seen.split.tolist() == two.split.tolist() and seen.split_hash == two.split_hash
    assert three.about("train") is three.about("validation") is three and two.about("evaluation") is two
    assert describe(three)[-1]["step"] == "validation users" and describe(three)[-1]["users"] == 3
    facts = read_json(three.path / "store.json")
    del facts["evaluation_hash"]
    with pytest.raises(InputError, match="'evaluation_hash' is missing"):
        check_facts(three.path / "store.json", facts)


def test_a_store_made_by_hand_has_no_report(ragged_store):
    with pytest.raises(InputError, match="no report"):
        describe(ragged_store)


def test_no_raw_user_id_is_written(plain_log, tmp_path):
    with plain_log["interactions"].open("a") as file:
        file.write("user-3,i1,yesterday\nuser-4,i99,5\n")
    store = prepare(open_source("tables", **plain_log), tmp_path / "store", ALL, progress=False)
    assert sum(store.manifest["rejected"].values()) == 2
    for file in (tmp_path / "store").rglob("*"):
        assert not file.is_file() or b"user-" not in file.read_bytes(), file


def test_salt_changes_ids_and_nothing_else(plain_log, tmp_path):
    stores = []
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode() * 16)
        config = PrepareConfig(min_item_interactions=1, min_user_length=1, salt_file=str(tmp_path / name))
        stores.append(prepare(open_source("tables", **plain_log), tmp_path / f"store-{name}", config, progress=False))
        for file in (tmp_path / f"store-{name}").rglob("*"):
            assert not file.is_file() or name.encode() * 4 not in file.read_bytes()
    first, second = stores
    assert not set(first.user_ids) & set(second.user_ids)
    assert first.split.tolist() == second.split.tolist() and first.split_hash == second.split_hash
    assert first.items.tolist() == second.items.tolist()
    assert first.manifest["content_hash"] == second.manifest["content_hash"]


def test_a_list_of_all_ids_finds_no_history(tmp_path, write_log):
    """The order of the users was that of their ids, and the split hash a digest of the ids that anyone could check."""
    users = [
        f"{name}@example.org" for name in ("ann", "bob", "cleo", "dora", "eve", "finn", "gil", "hans", "ida", "jo")
    ]
    shift = {user: (7 * i + 3) % 10 for i, user in enumerate(users)}

    def store(names, salt):
        rows = [f"{name},i{(shift[user] + t) % 8},{1000 * t + shift[user]}" for user, name in names for t in range(8)]
        files = write_log(rows, [f"i{i},Thing {i},x" for i in range(8)])
        (tmp_path / "salt").write_bytes(salt * 16)
        config = replace(ALL, salt_file=str(tmp_path / "salt"), evaluation_fraction=0.5)
        return prepare(open_source("tables", **files), tmp_path / f"store-{salt}", config, progress=False)

    first = store([(user, user) for user in users], b"a")
    found = [int(time) for time in first.timestamps[first.offsets[:-1]]]
    assert found != [shift[user] for user in sorted(users)]
    # Other people with the same histories, on the same sides: not a byte that is not salted differs.
    sides = dict(zip(users, split_users(users, 0.5, 0).tolist(), strict=True))
    others = [f"{i}@elsewhere.net" for i in range(10)]
    by_side = {
        side: [name for name, at in zip(others, split_users(others, 0.5, 0), strict=True) if at == side]
        for side in (0, 1)
    }
    second = store([(user, by_side[sides[user]].pop()) for user in users], b"b")
    assert first.split_hash == second.split_hash and first.content_hash == second.content_hash


def test_a_salt_inside_the_store_is_refused(plain_log, tmp_path):
    salt = tmp_path / "store" / "salt"
    salt.parent.mkdir()
    salt.write_bytes(b"x" * 32)
    with pytest.raises(InputError, match="salt"):
        prepare(open_source("tables", **plain_log), tmp_path / "store", PrepareConfig(salt_file=str(salt)))
    assert salt.read_bytes() == b"x" * 32


def test_same_recipe_reuses_and_any_change_rebuilds(plain_log, tmp_path):
    out, salt = tmp_path / "store", tmp_path / "salt"
    salt.write_bytes(b"a" * 32)

    def run(**changes):
        config = PrepareConfig(min_item_interactions=1, min_user_length=1, **changes)
        return prepare(open_source("tables", **plain_log), out, config, progress=False)

    def made():
        return (out / "manifest.json").stat().st_mtime_ns

    run()
    before = made()
    run()
    assert made() == before
    seeds = {run(split_seed=seed).split_hash for seed in range(4)}
    assert len(seeds) > 1
    run(salt_file=str(salt))
    before = made()
    run(salt_file=str(salt))
    assert made() == before
    salt.write_bytes(b"b" * 32)
    run(salt_file=str(salt))
    assert made() != before
    before = made()
    with plain_log["interactions"].open("a") as file:
        file.write("user-0,i0,99999\n")
    assert len(run(salt_file=str(salt)).items) == 81
    assert made() != before


def test_a_damaged_store_is_named_and_an_unfinished_one_built_anew(plain_log, tmp_path):
    out = tmp_path / "store"
    content = prepare(open_source("tables", **plain_log), out, ALL, progress=False).content_hash
    os.truncate(out / "users.arrow", 10)
    with pytest.raises(InputError, match="users.arrow is missing or changed since it was written: delete .*store and"):
        prepare(open_source("tables", **plain_log), out, ALL, progress=False)
    (out / "manifest.json").unlink()
    assert prepare(open_source("tables", **plain_log), out, ALL, progress=False).content_hash == content


def test_prepare_is_a_stage_like_any_other(plain_log, tmp_path):
    """What a plan needs to know of it, and that a plan gets the same store by it."""
    store = prepare(open_source("tables", **plain_log), tmp_path / "store", ALL, progress=False)
    source = open_source("tables", **plain_log)
    config, inputs = prepare_key(source, ALL)
    assert set(inputs) == {"file:clicks.csv", "file:things.csv"} and json.loads(json.dumps(config)) == config

    def make(folder, work):
        write_store(source, folder, ALL, progress=False)
        return 1.0

    artifact, reused = build(tmp_path / "planned", "data", config, inputs, make)
    assert not reused and artifact.manifest["key"] == open_artifact(tmp_path / "store").manifest["key"]
    assert artifact.content == open_artifact(tmp_path / "store").content
    assert InteractionStore.of(artifact).content_hash == store.content_hash
    (tmp_path / "salt").write_bytes(b"s" * 32)
    salted = replace(ALL, salt_file=str(tmp_path / "salt"))
    assert set(prepare_key(source, salted)[1]) == {*inputs, "salt"}
    with_salt = prepare(source, tmp_path / "salted", salted, progress=False)
    assert with_salt.content_hash == store.content_hash
    assert open_artifact(tmp_path / "salted").content == artifact.content


def test_a_foreign_folder_or_file_is_never_replaced(plain_log, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="thesis.tex"):
        prepare(open_source("tables", **plain_log), tmp_path / "mine", ALL)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        prepare(open_source("tables", **plain_log), tmp_path / "file", ALL)
    (tmp_path / "shop" / "catalogue").mkdir(parents=True)
    (tmp_path / "shop" / "catalogue" / "prices.csv").write_text("months of work")
    with pytest.raises(InputError, match="catalogue/prices.csv"):
        prepare(open_source("tables", **plain_log), tmp_path / "shop", ALL)
    for content in ('{"stage": "align"}', '{"name": "an extension"}', "[]"):
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / "manifest.json").write_text(content)
        with pytest.raises(InputError, match="other/manifest.json does not describe prepared data"):
            prepare(open_source("tables", **plain_log), tmp_path / "other", ALL)


def test_a_link_and_an_empty_folder_are_written_into(plain_log, tmp_path):
    """The link stays, and with it the disk that it leads to; an empty folder keeps the permissions it was made with."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    (tmp_path / "empty").mkdir(mode=0o770)
    (tmp_path / "empty").chmod(0o770)
    for name in ("store", "empty"):
        out = tmp_path / name
        content = prepare(open_source("tables", **plain_log), out, ALL, progress=False).content_hash
        again = prepare(open_source("tables", **plain_log), out, replace(ALL, split_seed=5), progress=False)
        assert again.manifest["config"]["split_seed"] == 5 and content
        assert InteractionStore.open(out).user_ids == again.user_ids
    assert (tmp_path / "store").is_symlink() and (tmp_path / "disk" / "manifest.json").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"store", "disk", "empty", "clicks.csv", "things.csv"}


def test_a_folder_that_cannot_be_written_is_named_before_the_log_is_read(plain_log, tmp_path):
    class Unread:
        name, notes = "unread", []

        def options(self):
            return {}

        def inputs(self):
            return {}

        def read(self, rejections):
            raise AssertionError("the log was read")

    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for out in (tmp_path / "clicks.csv" / "store", tmp_path / "loop", tmp_path / ("x" * 300), Path("/proc/store")):
        with pytest.raises(InputError, match="write|is a file"):
            prepare(Unread(), out, ALL, progress=False)


def test_threads_do_not_change_a_byte(tmp_path):
    hashes = set()
    before = pa.cpu_count()
    try:
        for threads in (1, 4):
            pa.set_cpu_count(threads)
            source = open_source("synthetic", users=50, items=60, mean_length=30.0, categories=6)
            hashes.add(prepare(source, tmp_path / str(threads), progress=False).manifest["content_hash"])
    finally:
        pa.set_cpu_count(before)
    assert len(hashes) == 1


def test_a_failed_run_leaves_nothing(plain_log, tmp_path):
    impossible = PrepareConfig(min_item_interactions=1000)
    with pytest.raises(InputError, match="items with fewer than 1000 interactions"):
        prepare(open_source("tables", **plain_log), tmp_path / "out" / "store", impossible, progress=False)
    assert not (tmp_path / "out").exists()


def test_killed_at_any_moment_the_same_command_gives_the_same_store(tmp_path):
    options = {"users": 2000, "items": 500, "mean_length": 60.0}
    script = (
        "from uqabench.data import open_source, prepare; print('ready', flush=True);"
        f"prepare(open_source('synthetic', **{options}), {str(tmp_path / 'killed')!r}, progress=False)"
    )
    start = time.monotonic()
    whole = prepare(open_source("synthetic", **options), tmp_path / "whole", progress=False)
    took = time.monotonic() - start
    for share in (0.5, 0.95):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(share * took)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (tmp_path / "killed").exists():
            InteractionStore.open(tmp_path / "killed")
    (tmp_path / ".killed.partial-left").mkdir()
    again = prepare(open_source("synthetic", **options), tmp_path / "killed", progress=False)
    assert again.manifest["content_hash"] == whole.manifest["content_hash"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".killed")] == []


def test_exclusion_lists_are_read_and_their_content_stays_out(plain_log, tmp_path):
    (tmp_path / "banned.txt").write_text("i1\n\n i2 \n")
    ids = read_ids(tmp_path / "banned.txt")
    assert ids == ["i1", "i2"]
    config = PrepareConfig(min_item_interactions=1, min_user_length=1, exclude_items=ids)
    store = prepare(open_source("tables", **plain_log), tmp_path / "store", config, progress=False)
    assert "i1" not in store.catalogue.item_ids and "i3" in store.catalogue.item_ids
    assert store.manifest["config"]["exclude_items"]["count"] == 2
    assert '"i1"' not in json.dumps(store.manifest)
    with pytest.raises(InputError, match="nothing.txt"):
        read_ids(tmp_path / "nothing.txt")


def test_unknown_sources_and_options():
    with pytest.raises(InputError, match="source 'netflix' is unknown: choose one of .*completejourney"):
        open_source("netflix")
    with pytest.raises(InputError, match="'synthetic' has no option 'user'"):
        open_source("synthetic", user=3)


def test_an_unwritable_place(plain_log, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="write"):
        prepare(open_source("tables", **plain_log), tmp_path / "file" / "store", ALL, progress=False)
