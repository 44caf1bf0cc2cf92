"""The experiment of costs on the small log, and prompts exported from a finished run."""

from __future__ import annotations

import json

import pytest

from uqabench.cli import main
from uqabench.errors import InputError
from uqabench.experiments.experiment import run_experiments, survey_experiments
from uqabench.experiments.export import export_run_prompts
from uqabench.experiments.spec import load_experiment
from uqabench.settings import patched

SPEC = """
title: Costs
costs: true
sweeps:
  - methods: [no-history, text8, sasrec, sasrec@text5, sasrec@soft-last, oracle]
"""
FEW = ("efficiency={prompts: 2, batches: [2], tokenizer: null}",)


@pytest.fixture(scope="module")
def measured(small_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("costs")
    (folder / "costs.yaml").write_text(SPEC)
    experiment, config = load_experiment(str(folder / "costs.yaml")), small_config(*FEW)
    run_experiments(folder / "run", [experiment], config, "tiny", progress=False)
    return folder / "run", experiment, config


def rows_of(folder):
    written = json.loads((folder / "experiments" / "costs" / "efficiency.json").read_text())
    assert written["failed"] == {}
    return {row["method"]: row for row in written["rows"]}


def test_every_method_that_asks_the_model_has_costs_and_a_score(measured):
    folder, _, _ = measured
    rows = rows_of(folder)
    assert list(rows) == ["no-history", "text8", "sasrec", "sasrec@text5", "sasrec@soft-last"]
    for row in rows.values():
        assert 0 <= row["ci95"][0] <= row["accuracy"] <= row["ci95"][1] <= 100
        assert (row["encoder_seconds"] is not None) == row["method"].startswith("sasrec")
    assert rows["sasrec"]["tokens"] == rows["no-history"]["tokens"] + 1 == rows["sasrec@soft-last"]["tokens"]
    assert rows["no-history"]["tokens"] < rows["sasrec@text5"]["tokens"] < rows["text8"]["tokens"] + 1
    out = folder / "experiments" / "costs"
    assert {f"efficiency.{suffix}" for suffix in ("json", "txt", "csv", "md", "tex")} <= {p.name for p in out.iterdir()}


def test_new_prices_time_nothing_again(measured):
    folder, experiment, config = measured
    before = rows_of(folder)
    priced = patched(config, {"efficiency": {"prices": {"input": 3.0}}})
    assert {row["action"] for row in survey_experiments(folder, [experiment], priced)} == {"reuse"}
    run_experiments(folder, [experiment], priced, "tiny", progress=False)
    for name, row in rows_of(folder).items():
        assert row["first_token_seconds"] == before[name]["first_token_seconds"]
        assert row["cost_per_million"] == pytest.approx(3.0 * row["tokens"])


def test_prompts_of_a_finished_run(finished, tmp_path, capsys):
    user = json.loads(next(finished.glob("evaluate/sasrec-*/predictions.jsonl")).read_text().splitlines()[0])["user"]
    command = ["export-prompts", str(finished), "--method", "sasrec", "--users", str(user)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert "prompts for align/sasrec" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "out" / "prompts.jsonl").read_text().splitlines()]
    assert lines and {line["user"] for line in lines} == {user}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "text9"}, "no prompts of 'text9'.*choose among sasrec"),
        ({"name": "oracle"}, "no prompts of 'oracle'"),
        ({"users": (10**6,)}, "--users 1000000: no evaluation question is about this user"),
        ({"run": "nowhere"}, "nowhere has no finished run"),
    ],
)
def test_exports_that_cannot_be(finished, tmp_path, changes, message):
    out = tmp_path / "out"
    run = tmp_path / changes["run"] if "run" in changes else finished
    with pytest.raises(InputError, match=message):
        export_run_prompts(run, changes.get("name", "sasrec"), out, users=changes.get("users", ()))
    assert not out.exists()
