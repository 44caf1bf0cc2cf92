"""Store -> published files -> store is the identity."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uqabench.data import ATTRIBUTES, Catalogue, InteractionStore
from uqabench.data.official import GivenQuestions, write_official
from uqabench.data.official.factor import Texts
from uqabench.data.official.qwen import token_bytes
from uqabench.data.official.reading import Reading
from uqabench.data.rejections import Rejections
from uqabench.errors import InputError
from uqabench.vocabulary import SUBTASKS

TEXTS = Texts(token_bytes()[0])
QUESTIONS = [
    "用户第3次（从1开始计数）浏览的商品，其品牌是什么？", "用户历史行为序列的长度是多少？",
    "用户下一个可能点击的商品的标题是什么？", "用户下一个可能点击的商品的品牌是什么？", "用户最感兴趣的3个品牌是什么？",
    "用户近期最感兴趣的品牌是什么？", "用户品牌偏好的转移路径是什么？",
]  # fmt: skip


@st.composite
def stores(draw) -> tuple[InteractionStore, dict[str, GivenQuestions]]:
    """A store of published items: each attribute has values with a number, a token list, or both."""
    n_items = draw(st.integers(1, 8))
    numbers = sorted(draw(st.sets(st.integers(0, 2**31 - 1), min_size=n_items, max_size=n_items)))
    token_lists = st.lists(st.integers(0, 151_935), max_size=3)
    described = {}
    for name in ATTRIBUTES:
        ids = st.just(-1) if name == "title" else st.integers(-1, 5)
        pairs = draw(st.lists(st.tuples(ids, token_lists), min_size=n_items, max_size=n_items))
        described[name] = [(number, tuple(tokens)) for number, tokens in pairs]
    values, codes, tokens, source_ids = {}, {}, {}, {"item": np.array(numbers)}
    for name, pairs in described.items():
        spelt = {pair: b"".join(TEXTS._tokens[t] for t in pair[1]).decode("utf-8", "replace") for pair in pairs}
        known = {pair for pair in pairs if pair != (-1, ())}
        order = sorted(known, key=lambda p: (p[0], spelt[p].encode(), np.array(p[1], np.int32).tobytes()))  # noqa: B023
        values[name] = [spelt[pair] for pair in order]
        codes[name] = np.array([order.index(pair) if pair in order else -1 for pair in pairs], np.int32)
        lengths = [len(pair[1]) for pair in order]
        flat = np.array([token for pair in order for token in pair[1]], np.int32)
        tokens[name] = np.r_[0, np.cumsum(lengths)].astype(np.int64), flat
        if name != "title":
            source_ids[name] = np.array([pair[0] for pair in order], np.int64)
    lengths = draw(st.lists(st.integers(1, 7), min_size=2, max_size=6))
    items = np.array(
        draw(st.lists(st.integers(0, n_items - 1), min_size=sum(lengths), max_size=sum(lengths))), np.int32
    )
    items[:n_items] = np.arange(n_items)[: len(items)]
    if len(items) < n_items:
        lengths[0] += n_items - len(items)
        items = np.r_[items, np.arange(len(items), n_items, dtype=np.int32)]
    split = np.array([0, 1, *draw(st.lists(st.integers(0, 1), min_size=len(lengths) - 2, max_size=len(lengths) - 2))])
    offsets = np.r_[0, np.cumsum(lengths)]
    with_times, with_actions = draw(st.booleans()), draw(st.booleans())
    times = np.array([draw(st.integers(0, 2**40)) for _ in items]) if with_times else None
    actions = np.array([draw(st.integers(0, 1)) for _ in items], np.int8) if with_actions else None
    trained = np.repeat(split == 0, lengths)
    popularity = np.bincount(items[trained], minlength=n_items)
    names = np.array([str(n) for n in numbers] if draw(st.booleans()) else [f"sku {n}" for n in numbers], object)
    catalogue = Catalogue(names, values, codes, popularity, tokens, 151_936, TEXTS.vocabulary, source_ids)
    manifest = {"tokenizer": "qwen2.5", "actions": ["buy", "view"] if with_actions else []}
    ids = [f"user {i}" for i in range(len(lengths))]
    store = InteractionStore(offsets, items, times, actions, ids, split.astype(np.int8), catalogue, "", manifest)
    return store, {name: draw(questions(store, side)) for side, name in enumerate(("train", "evaluation"))}


@st.composite
def questions(draw, store: InteractionStore, side: int) -> GivenQuestions:
    n = draw(st.integers(0, 4))
    users = np.array([draw(st.sampled_from(np.flatnonzero(store.split == side).tolist())) for _ in range(n)], np.int32)
    cuts = np.array([draw(st.integers(1, int(store.lengths[user]))) for user in users], np.int32)
    subtasks = np.array([draw(st.integers(0, len(SUBTASKS) - 1)) for _ in range(n)], np.int8)
    answers = np.array([draw(st.integers(0, 3)) for _ in range(n)], np.int8)
    return GivenQuestions(users, cuts, subtasks, answers, [QUESTIONS[i] + draw(st.text()) for i in subtasks])


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(stores(), st.integers(1, 8))
def test_store_files_store_is_the_identity(made, n_history):
    store, asked = made
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "published"
        write_official(store, asked, n_history, path)
        reading = Reading(path, rejections := Rejections(strict=True), TEXTS)
        back, again, notes = reading.store()
    assert not rejections.counts and not notes
    for name in ("offsets", "items", "split"):
        assert np.array_equal(getattr(back, name), getattr(store, name)), name
    for name in ("timestamps", "actions"):
        assert (getattr(store, name) is None) == (getattr(back, name) is None)
        assert getattr(store, name) is None or np.array_equal(getattr(back, name), getattr(store, name))
    assert back.user_ids == store.user_ids and reading.actions == store.manifest["actions"]
    ours, theirs = store.catalogue, back.catalogue
    assert theirs.item_ids.tolist() == ours.item_ids.tolist() and theirs.values == ours.values
    assert np.array_equal(theirs.popularity, ours.popularity)
    for name in ATTRIBUTES:
        assert np.array_equal(theirs.codes[name], ours.codes[name])
        assert all(np.array_equal(a, b) for a, b in zip(theirs.tokens[name], ours.tokens[name], strict=True))
    assert all(np.array_equal(theirs.source_ids[name], ids) for name, ids in ours.source_ids.items())
    for split, questions_ in asked.items():
        assert again[split].texts == questions_.texts
        for name in ("user", "cut", "subtask", "answer"):
            assert np.array_equal(getattr(again[split], name), getattr(questions_, name)), name


def test_files_have_the_published_schema(published, tmp_path):
    folder = published().write()
    reading = Reading(folder, Rejections(), TEXTS)
    store, asked, _ = reading.store()
    store.manifest["tokenizer"] = "qwen2.5"
    write_official(store, asked, 512, tmp_path / "out")
    for name in ("pretrain_data_train", "pretrain_data_eval", "align_data_train", "align_data_eval"):
        theirs, ours = (pa.ipc.open_file(path / f"{name}.arrow").read_all() for path in (folder, tmp_path / "out"))
        assert ours.schema == theirs.schema
        assert ours.to_pylist() == theirs.to_pylist()


def test_a_store_of_ones_own_comes_back_with_names_times_and_order(synthetic_store, tmp_path):
    """Through token ids of single bytes, which the Qwen2.5 vocabulary has: what is read spells what was written."""
    of_byte = {token[0]: i for i, token in enumerate(TEXTS._tokens) if len(token) == 1}
    store = synthetic_store
    asked = {name: GivenQuestions(*(np.zeros(0, np.int8) for _ in range(4)), []) for name in ("train", "evaluation")}
    folder = tmp_path / "out"

    def encode(texts: list[str]) -> list[list[int]]:
        assert type(texts) is list  # transformers' tokenizers take no other sequence
        return [[of_byte[b] for b in text.encode()] for text in texts]

    write_official(store, asked, 64, folder, encode)
    back, _, _ = Reading(folder, Rejections(strict=True), TEXTS).store()
    for name in ("offsets", "items", "timestamps", "split"):
        assert np.array_equal(getattr(back, name), getattr(store, name)), name
    assert back.user_ids == store.user_ids and back.split_hash == store.split_hash
    ours, theirs = store.catalogue, back.catalogue
    assert theirs.item_ids.tolist() == ours.item_ids.tolist()
    for name in ATTRIBUTES:
        assert theirs.values[name] == ours.values[name] and np.array_equal(theirs.codes[name], ours.codes[name])


def test_foreign_folders_are_left_alone(synthetic_store, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds 'notes.txt'"):
        write_official(synthetic_store, {}, 4, tmp_path, lambda texts: [[] for _ in texts])
    with pytest.raises(InputError, match="give the tokenizer"):
        write_official(synthetic_store, {}, 4, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
