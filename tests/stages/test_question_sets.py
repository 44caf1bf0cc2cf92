"""Question sets as an artefact."""

from __future__ import annotations

import json

import pytest

from uqabench.errors import InputError
from uqabench.questions.questions import QuestionSet
from uqabench.settings import QuestionConfig
from uqabench.stages.question_sets import build_questions
from uqabench.vocabulary import SUBTASKS


def config(**changes):
    mix = {name: 1.0 for name in SUBTASKS}
    return QuestionConfig(**{"n_questions": 28, "mix": mix, "history": 24, "min_history": 10, **changes})


def test_both_splits_and_what_was_drawn(small_store, tmp_path):
    configs = {"train": config(seed=1), "evaluation": config(seed=2, n_questions=35)}
    artifact, reused = build_questions(small_store, configs).build(tmp_path / "q")
    assert not reused and build_questions(small_store, configs).build(tmp_path / "q")[1]
    report = json.loads((tmp_path / "q" / "metrics.json").read_text())
    for split, n in (("train", 28), ("evaluation", 35)):
        questions = QuestionSet.open(artifact.path / f"{split}.arrow")
        assert len(questions) == n and sum(report[split]["counts"].values()) == n
        assert set(questions.user.tolist()) <= set(small_store.users(split).tolist())
        assert questions.split == split and questions.split_hash == small_store.split_hash


def test_equal_settings_equal_content(small_store, tmp_path):
    contents = [
        build_questions(small_store, {"train": config(seed=seed)}).build(tmp_path / name)[0].content
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert contents[0] == contents[1] != contents[2]


def test_what_the_default_mix_did_not_get_is_written_down(small_store, tmp_path):
    wish = config(mix=None, default_mix={"df": 1.0, "li": 1_000.0}, n_questions=1_001, extra_cuts=0)
    build_questions(small_store, {"train": wish}).build(tmp_path / "q")
    report = json.loads((tmp_path / "q" / "metrics.json").read_text())["train"]
    assert report["wanted"] == {"df": 1, "li": 1_000} and report["counts"]["df"] == 1
    made = report["counts"]["li"]
    assert 0 < made < 1_000 and len(QuestionSet.open(tmp_path / "q" / "train.arrow")) == made + 1
    assert report["notes"][0].startswith(f"Sub-task li: 1000 questions wanted, {made} possible from ")


def test_what_cannot_be_asked_leaves_nothing(small_store, tmp_path):
    with pytest.raises(InputError, match="questions wanted"):
        build_questions(small_store, {"train": config(n_questions=10**6)}).build(tmp_path / "q")
    assert list(tmp_path.iterdir()) == []
