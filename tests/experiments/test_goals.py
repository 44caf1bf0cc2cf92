"""The experiment `goals`: a small real run is held against all five goals, from the files that it leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from uqabench.experiments.experiment import run_experiments
from uqabench.experiments.spec import Sweep, cells, load_experiment
from uqabench.questions.scoring import read_predictions
from uqabench.report.findings import findings_page, read_experiments
from uqabench.report.goals import Measured, goals_of
from uqabench.settings import run_config

METHODS = ("text8", "gru4rec@segments", "sasrec@segments", "gru4rec@segments+untrained", "history-vector@segments",
           "no-history-model", "history-model")  # fmt: skip


@pytest.fixture(scope="module")
def run(small_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("goals") / "run"
    experiment = replace(load_experiment("goals"), seeds=(0, 1), sweeps=(Sweep(METHODS),))
    config = small_config("probe=true", methods=METHODS)
    run_experiments(folder, [experiment], config, "tiny", progress=False, page=False, strict=True)
    return folder


def test_a_real_run_is_held_against_all_five(run):
    (found,) = read_experiments([run])
    goals = goals_of(Measured(found.results, found.rows, found.run))
    assert {goal.number for goal in goals} == {1, 2, 3, 4, 5}
    assert f"| 4 | {next(goal.text for goal in goals if goal.number == 4)} |" in findings_page([found])


def test_what_the_model_leaves_unread_follows_from_the_answers(run):
    (found,) = read_experiments([run])
    mine = [cell for cell in found.results["cells"] if cell["method"] == "history-vector@segments"]
    assert [cell["soft_tokens"] for cell in mine] == [8, 8]
    shares = []
    for name in ("probe", "model"):
        files = [cell["probe_answers"]["soft tokens"] if name == "probe" else cell["predictions"] for cell in mine]
        lines = [line for file in files for line in read_predictions(run / file) if line["subtask"] == "df"]
        shares.append(100 * sum(line["prediction"] == line["answer"] for line in lines) / len(lines))
    goals = {goal.text: goal for goal in goals_of(Measured(found.results, found.rows, found.run))}
    unread = goals["Probe minus language model, History vector@segments, df"].found
    assert unread.startswith(f"{shares[0] - shares[1]:+.1f} ")


def test_the_shipped_experiment_names_what_the_goals_are_about():
    methods = {cell.method.name for cell in cells(load_experiment("goals"), run_config("planted"))}
    trained = {f"{name}@segments-next" for name in ("gru4rec", "sasrec", "hstu")}
    twins = {f"{name}+untrained" for name in trained}
    judges = {"no-history-model", "history-model"}
    assert methods >= {"text50", "history-vector@segments"} | trained | twins | judges
