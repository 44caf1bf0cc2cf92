"""Runs about validation users: no evaluation user is read, and results and tables say whom the questions are about."""

from __future__ import annotations

import json

import pytest

from tests.conftest import SMALL_LOG
from uqabench.cli import main
from uqabench.data import InteractionStore
from uqabench.experiments.show import question_card
from uqabench.questions.scoring import read_predictions
from uqabench.report.results import load_results

METHODS = "sasrec,majority,most-often-next,oracle"
OPTIONS = ",".join(f"{name}: {value}" for name, value in SMALL_LOG.items())


@pytest.fixture(scope="module")
def runs(small_run, tmp_path_factory):
    """The folder of runs: one about evaluation users, and one of the same name about validation users."""
    folder = tmp_path_factory.mktemp("runs")
    settings = (*small_run, f"data.options={{{OPTIONS}}}", "data.prepare.validation_fraction=0.3")
    given = [word for setting in settings for word in ("--set", setting)]
    for flag in ((), ("--validation",)):
        command = ["run", "--preset", "tiny", "--quiet", "--runs", str(folder), "--methods", METHODS, *given, *flag]
        assert main(command) == 0
    return folder


def asked(run):
    return {row["user"] for file in run.glob("evaluate/*/predictions.jsonl") for row in read_predictions(file)}


def test_a_run_about_validation_users_reads_no_evaluation_user(runs):
    assert sorted(path.parent.name for path in runs.glob("*/results.json")) == ["tiny", "tiny-validation"]
    for name, users in (("tiny", "evaluation"), ("tiny-validation", "validation")):
        results = load_results(runs / name)
        store = InteractionStore.open(runs / name / results["folders"]["data"])
        assert results["users"] == users and asked(runs / name) <= set(store.users(users).tolist())
        sets = runs / name / results["folders"]["questions"]
        assert sorted(file.stem for file in sets.glob("*.arrow")) == sorted(["train", users])
        table = (runs / name / "tables" / "table2.txt").read_text()
        assert ("validation users" in table) == (users == "validation")
        assert "truth: " in question_card(runs / name, 0)


def test_pre_training_is_measured_on_validation_users_in_both(runs):
    metrics = []
    for name in ("tiny", "tiny-validation"):
        (folder,) = (runs / name).glob("pretrain/sasrec-*")
        metrics.append(json.loads((folder / "metrics.json").read_text()))
    assert metrics[0] == metrics[1]
    results = load_results(runs / "tiny")
    store = InteractionStore.open(runs / "tiny" / results["folders"]["data"])
    assert metrics[0]["users"] == len(store.users("validation")) != len(store.users("evaluation"))


def test_validation_without_validation_users_is_refused(runs, capsys):
    command = ["run", "--preset", "tiny", "--validation", "--set", "data.prepare.validation_fraction=0"]
    assert main(command) == 2
    assert "data.prepare.validation_fraction is 0" in capsys.readouterr().err
