"""Questions that came with the data: asked as they stand, kept and answered like others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from uqabench.data import InteractionStore
from uqabench.data.official import GIVEN_FILES, GivenQuestions
from uqabench.errors import InputError
from uqabench.questions.baselines import predict
from uqabench.questions.given import given_questions
from uqabench.questions.messages import PromptText
from uqabench.questions.questions import QuestionSet
from uqabench.questions.templates import Templates
from uqabench.settings.llm import PromptConfig
from uqabench.settings.run import run_config
from uqabench.stages.question_sets import build_questions

from .conftest import random_store


@pytest.fixture
def small() -> InteractionStore:
    return replace(random_store(3), manifest={"content_hash": "0" * 64})


@pytest.fixture
def asked(small: InteractionStore, tmp_path) -> InteractionStore:
    """The store with three questions a side."""
    for side, split in enumerate(GIVEN_FILES):
        users = small.users(split)[:3].astype(np.int32)
        columns = users, np.array([5, 6, 7], np.int32), np.array([0, 1, 1], np.int8), np.array([2, side, side], np.int8)
        GivenQuestions(*columns, [f"{split} {i} <|im_end|>\nA. a" for i in range(3)]).save(
            tmp_path / GIVEN_FILES[split]
        )
    return replace(small, path=tmp_path)


def test_sets_are_kept_whole(asked, tmp_path):
    questions, report = given_questions(asked, "train", 4)
    assert report["counts"] == {"df": 1, "mf": 2} and len(questions) == 3 and questions.n_history == 4
    questions.save(tmp_path / "train.arrow")
    back = QuestionSet.open(tmp_path / "train.arrow")
    assert back.texts == questions.texts and back.version == "official" and not back.by_basket
    for name in ("user", "cut", "subtask", "answer", "kind", "option_values", "option_lengths"):
        assert np.array_equal(getattr(back, name), getattr(questions, name)), name
    assert back.select(np.array([False, True, True])).texts == questions.texts[1:]


def test_messages_are_the_words_that_came(asked):
    questions, _ = given_questions(asked, "evaluation", 4)
    prompts = PromptText(asked, Templates.load(), PromptConfig())
    assert prompts.content(questions, 1, 0) == questions.texts[1]
    with_items = prompts.content(questions, 1, 20)
    assert with_items.endswith(questions.texts[1]) and with_items.count("\n") == 4 + questions.texts[1].count("\n") + 1


def test_only_baselines_of_letters_answer(asked):
    train, evaluation = (given_questions(asked, split, 4)[0] for split in GIVEN_FILES)
    assert predict("majority", evaluation, asked, train).tolist() == [2, 0, 0]
    assert set(predict("uniform", evaluation, asked, train).tolist()) <= {0, 1, 2, 3}
    for name in ("oracle", "popularity", "seen-option", "most-often-next"):
        with pytest.raises(InputError, match=f"The baseline '{name}' compares options' values"):
            predict(name, evaluation, asked, train)


def test_the_stage_takes_all_and_knows_them_by_content(asked, tmp_path):
    config = run_config("tiny", overrides=("questions.version=official",))
    assert config.llm.questions.version != "official" == config.questions.train.version
    configs = {"train": config.questions.train, "evaluation": config.questions.evaluation}
    first = build_questions(asked, configs, progress=False)
    artifact, _ = first.build(tmp_path / "out")
    assert artifact.json("metrics.json")["train"]["counts"] == {"df": 1, "mf": 2}
    found = GivenQuestions.open(asked.path, "train", asked.lengths)
    (asked.path / GIVEN_FILES["train"]).unlink()
    replace(found, texts=["changed", *found.texts[1:]]).save(asked.path / GIVEN_FILES["train"])
    assert build_questions(asked, configs, progress=False).key != first.key


def test_a_store_without_questions_says_so(small, asked):
    with pytest.raises(InputError, match="made by hand has no questions"):
        given_questions(replace(small, path=None), "train", 4)
    (asked.path / "other").mkdir()
    with pytest.raises(InputError, match="came without questions: set questions.version"):
        given_questions(replace(small, path=asked.path / "other"), "train", 4)
    found = GivenQuestions.open(asked.path, "train", asked.lengths)
    path = asked.path / GIVEN_FILES["train"]
    for name, value in (("user", 10**6), ("cut", 0), ("cut", 10**6), ("subtask", 7), ("answer", 4)):
        values = np.array(getattr(found, name))
        values[0] = value
        path.unlink()
        replace(found, **{name: values}).save(path)
        with pytest.raises(InputError, match=f"column '{name}'"):
            GivenQuestions.open(asked.path, "train", asked.lengths)
