"""Question sets keep their bytes: equal stores and settings give the questions that were recorded for a version."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.questions.conftest import EQUAL_MIX, random_store
from uqabench.questions import pools
from uqabench.questions.generate import generate
from uqabench.settings import QuestionConfig

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text())
COLUMNS = (
    "user", "cut", "subtask", "kind", "template", "attribute", "params", "option_values", "option_lengths", "answer"
)  # fmt: skip
STORES = {
    "plain": lambda: random_store(5, users=120, items=90, length=60),
    "gaps": lambda: random_store(6, users=90, items=70, categories=7, length=50, missing=0.2),
    "single": lambda: random_store(7, users=80, items=150, categories=4, length=90, baskets=False),
}
CONFIGS = {
    # Few and many questions: with many, cuts run out, extra ones are opened and v1 loosens the balance.
    "few": {"n_questions": 140, "default_mix": EQUAL_MIX, "history": 128},
    "many": {"n_questions": 6000, "default_mix": EQUAL_MIX, "history": 64, "max_attempts": 24},
    "short": {"n_questions": 700, "history": 32, "min_history": 8, "cuts_per_user": 1, "extra_cuts": 3, "seed": 9},
    "once": {"n_questions": 900, "history": 48, "cuts_per_user": 5, "extra_cuts": 0, "max_attempts": 7, "seed": 3},
}


def digest(questions, report):
    """(of the columns, of what the report says; how many candidates were tried for it may change)"""
    state = hashlib.sha256()
    for name in COLUMNS:
        column = np.ascontiguousarray(getattr(questions, name))
        state.update(f"{name} {column.dtype.str} {column.shape}".encode() + column.tobytes())
    told = {name: value for name, value in report.as_dict().items() if name not in ("candidates", "discarded")}
    facts = json.dumps(told, sort_keys=True).encode()
    return state.hexdigest(), hashlib.sha256(facts).hexdigest()


@pytest.fixture(scope="module")
def stores():
    return {name: make() for name, make in STORES.items()}


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", STORES)
def test_questions_are_those_recorded(stores, name, config, version):
    for split in ("train", "evaluation"):
        settings = QuestionConfig(version=version, **CONFIGS[config])
        got = digest(*generate(stores[name], split, settings))
        assert list(got) == RECORDED[f"{name} {config} {version} {split}"]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("name", ["plain", "single"])
def test_what_cannot_be_in_balance_is_put_off_and_changes_nothing(monkeypatch, stores, name, version):
    # Most right answers are those of no history of so small a pool. What is recorded was chosen with every candidate
    # made at once.
    monkeypatch.setattr(pools, "HISTORIES", 60)
    settings = QuestionConfig(version=version, **CONFIGS["many"])
    questions, report = generate(stores[name], "train", settings, threads=2)
    assert list(digest(questions, report)) == RECORDED[f"{name} many {version} train of 60 histories"]
    assert digest(*generate(stores[name], "train", settings, threads=1)) == digest(questions, report)
    assert all(report.discarded[subtask]["too rare for the balance"] > 0 for subtask in ("li", "it"))
