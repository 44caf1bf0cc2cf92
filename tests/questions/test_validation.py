"""Questions and validation users: those about evaluation users stay as they are, those about validation users know
training users only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import SMALL_LOG
from uqabench.data import PrepareConfig, open_source, prepare
from uqabench.errors import InputError
from uqabench.questions.baselines import predict
from uqabench.questions.generate import generate
from uqabench.settings import QuestionConfig

CONFIG = QuestionConfig(n_questions=140, history=24, min_history=10, cuts_per_user=2, seed=4)
PREPARED = PrepareConfig(min_item_interactions=2, min_user_length=8, max_sequence=64, evaluation_fraction=0.25)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The small log without validation users and with a third of the others validating."""
    folder, source = tmp_path_factory.mktemp("validation"), open_source("synthetic", **SMALL_LOG)
    return [
        prepare(source, folder / str(share), replace(PREPARED, validation_fraction=share), progress=False)
        for share in (0.0, 0.33)
    ]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_questions_about_evaluation_users_keep_their_bytes(stores, tmp_path, version):
    config = replace(CONFIG, version=version)
    sets = [generate(store, "evaluation", config)[0] for store in stores]
    for name, questions in zip("ab", sets, strict=True):
        questions.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    for baseline in ("popularity", "most-often-next"):
        train = generate(stores[0], "train", config)[0]
        guesses = [predict(baseline, sets[0], store, train) for store in stores]
        assert guesses[0].tolist() == guesses[1].tolist()


def test_each_side_s_questions_are_about_that_side(stores):
    _, store = stores
    for split in ("train", "evaluation", "validation"):
        questions, _ = generate(store, split, CONFIG)
        assert len(questions) and set(questions.user.tolist()) <= set(store.users(split).tolist())
        assert questions.split == split
        assert (questions.split_hash == store.split_hash) == (split != "evaluation")


def test_no_answer_of_a_validation_user_shapes_what_training_is_asked(stores):
    """Validation users' sequences turned round, popularity as it was: training questions stay, evaluation ones move."""
    _, store = stores
    items = store.items.copy()
    for user in store.users("validation"):
        span = slice(store.offsets[user], store.offsets[user + 1])
        items[span] = items[span][::-1]
    turned = replace(store, items=items)

    def same(split: str) -> bool:
        first, second = (generate(s, split, replace(CONFIG, version="v2"))[0] for s in (store, turned))
        return np.array_equal(first.option_values, second.option_values)

    assert same("train") and not same("evaluation") and not same("validation")


def test_a_store_without_validation_users_says_so(stores):
    with pytest.raises(InputError, match="no validation users: set data.prepare.validation_fraction"):
        generate(stores[0], "validation", CONFIG)
