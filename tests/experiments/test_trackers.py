"""What trackers are sent: the numbers of the training logs and the scores, once."""

from __future__ import annotations

import json
import shutil

import pytest

from uqabench.artifact import Artifact
from uqabench.errors import MissingExtra
from uqabench.experiments import trackers
from uqabench.experiments.trackers import check_tracker, scalars, track
from uqabench.files import read_json


@pytest.fixture
def artifacts(finished, tmp_path):
    """A copy of some stage folders of the finished run."""
    found = [*finished.glob("align/sasrec-*"), *finished.glob("evaluate/sasrec-*"), *finished.glob("states/sasrec-*")]
    for folder in found:
        shutil.copytree(folder, tmp_path / "run" / folder.relative_to(finished))
    return [Artifact(file.parent, read_json(file)) for file in sorted((tmp_path / "run").glob("*/*/manifest.json"))]


def test_scalars_are_those_of_the_logs_and_the_scores(artifacts):
    by_stage = {artifact.manifest["stage"]: artifact.path for artifact in artifacts}
    lines = [json.loads(line) for line in (by_stage["align"] / "log.jsonl").read_text().splitlines()]
    found = scalars(by_stage["align"])
    assert [step for step, _ in found] == [line["step"] for line in lines]
    assert found[-1][1]["loss"] == lines[-1]["loss"]
    metrics = read_json(by_stage["evaluate"] / "metrics.json")
    [(_, scores)] = scalars(by_stage["evaluate"])
    assert scores["accuracy/overall"] == metrics["overall"]["accuracy"] and "accuracy/df" in scores
    assert scalars(by_stage["states"]) == []


def test_each_folder_is_sent_once(artifacts, tmp_path, monkeypatch):
    sent = []
    monkeypatch.setitem(trackers._SENDERS, "mlflow", lambda run, name, config, points: sent.append(name))
    assert track("mlflow", tmp_path / "run", artifacts) == sent and len(sent) == 2
    assert track("mlflow", tmp_path / "run", artifacts) == [] and len(sent) == 2
    assert track("none", tmp_path / "run", artifacts) == []


def test_a_tracker_that_is_not_installed_is_said_first(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    check_tracker("none")
    with pytest.raises(MissingExtra, match=r"needs the package 'wandb'.*uqabench\[wandb\]"):
        check_tracker("wandb")


@pytest.mark.slow
def test_mlflow_holds_the_numbers(artifacts, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = tmp_path / "run"
    names = track("mlflow", run, artifacts)
    client = mlflow.MlflowClient(tracking_uri=(run / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("uqabench run")
    runs = {each.info.run_name: each for each in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == sorted(names)
    aligned = next(artifact for artifact in artifacts if artifact.manifest["stage"] == "align")
    of = runs[f"align/{aligned.path.name}"]
    assert of.info.status == "FINISHED" and of.data.params["integration"] == "mean-pooling"
    points = [(metric.step, metric.value) for metric in client.get_metric_history(of.info.run_id, "loss")]
    assert points == [(step, found["loss"]) for step, found in scalars(aligned.path) if "loss" in found]


@pytest.mark.slow
def test_wandb_keeps_a_run_each_when_offline(artifacts, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="W&B is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    names = track("wandb", tmp_path / "run", artifacts)
    assert len(list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))) == len(names) == 2
