"""An experiment's table: its rows and columns, seeds, gaps, the paper beside, and what prediction files add."""

import csv
import io
import json

import numpy as np
import pytest

from uqabench.errors import InputError
from uqabench.questions.scoring import read_predictions, score, write_predictions
from uqabench.questions.statistics import accuracy
from uqabench.report import experiment_rows, experiment_table, load_experiment, write_experiment
from uqabench.report.render import comma_separated, markdown, terminal
from uqabench.report.scaling import fit_power_law, fit_scaling, paper_scaling


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def records(table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(comma_separated(table))))


def test_two_axes_make_rows_by_rows(sweep):
    heading, _, *rows = cells(markdown(experiment_table(sweep)))
    assert heading == ["Method", "Objective", "Inputs", "SU", "AP", "IP", "Overall", "Seed sd"]
    assert [row[:3] for row in rows] == [
        ["*Embedding-based*", "", ""],
        ["Trm++", "SL", "full"],
        ["", "", "without text"],
        ["", "", "without side"],
        ["", "CL", "full"],
        ["", "", "without text"],
        ["", "", "without side"],
        ["*Baselines*", "", ""],
        ["Oracle", "", ""],
    ]


def test_one_axis_and_one_method_make_a_plain_table(sweep):
    sweep["axes"] = {"dropout": [0.1, None, True]}
    sweep["cells"] = [{**sweep["cells"][0], "axes": {"dropout": value}, "seed": 0} for value in (True, 0.1, None)]
    sweep["rows"] = [row for row in sweep["rows"] if row["cell"] < 3]
    heading, _, *rows = cells(markdown(experiment_table(sweep)))
    assert heading == ["Dropout", "SU", "AP", "IP", "Overall"]
    assert [row[0] for row in rows] == ["0.1", "null", "true"]  # in the order of the axis


def test_a_row_of_several_seeds_is_their_mean_and_spread(sweep):
    scores = {(row["cell"], row["scope"]): row for row in sweep["rows"]}
    first, second = (scores[cell, "overall"] for cell in (0, 1))
    record = records(experiment_table(sweep))[0]
    assert record["seeds"] == "0 1"
    assert float(record["overall"]) == pytest.approx((first["accuracy"] + second["accuracy"]) / 2)
    assert float(record["sd_overall"]) == pytest.approx(np.std([first["accuracy"], second["accuracy"]], ddof=1))
    assert float(record["ci95_low"]) == pytest.approx((first["ci95"][0] + second["ci95"][0]) / 2)
    assert float(record["df"]) == pytest.approx(np.mean([scores[cell, "df"]["accuracy"] for cell in (0, 1)]))
    assert float(record["recall@10"]) == 7.5 and float(record["model_size"]) == 98304
    notes = " ".join(experiment_table(sweep).notes)
    assert "Means over the seeds 0, 1" in notes and "does not shrink" in notes and "6,000 in all" in notes


def test_what_failed_or_was_not_run_is_shown_as_such(sweep):
    text = terminal(experiment_table(sweep))
    lines = {tuple(line.split()[:3]): line.split() for line in text.splitlines()}
    assert lines["without", "text", "-"][-3:] == ["-", "failed", "-"]
    assert lines["without", "side", "-"][-3:] == ["-", "-", "-"]
    assert "Failed: Trm++, CL, without text (seed 0: Out of memory)" in text
    assert "Not run: Trm++, CL, without side." in text
    assert [record["status"] for record in records(experiment_table(sweep))][-3:] == ["failed", "missing", "done"]


def test_a_failed_seed_leaves_the_mean_of_the_others(sweep):
    sweep["cells"][1] |= {"status": "failed", "error": "Loss is NaN.\nTraceback"}
    sweep["rows"] = [row for row in sweep["rows"] if row["cell"] != 1]
    record = records(experiment_table(sweep))[0]
    assert record["seeds"] == "0" and record["status"] == "done" and record["sd_overall"] == ""
    assert float(record["overall"]) == sweep["rows"][0]["accuracy"]
    assert "Trm++, SL, full (seed 1: Loss is NaN. Traceback)" in " ".join(experiment_table(sweep).notes)


def test_the_papers_numbers_stand_beside(sweep):
    heading, _, *rows = cells(markdown(experiment_table(sweep, compare="paper")))
    assert heading[-4:] == ["Paper SU", "Paper AP", "Paper IP", "Paper overall"]
    assert [row[-1] for row in rows if row[2]] == ["53.88", "51.16", "47.87", "49.40", "44.99", "41.47"]
    assert rows[-1][-4:] == ["-"] * 4
    sweep["paper"] = None
    assert "no table of this experiment" in " ".join(experiment_table(sweep, compare="paper").notes)
    with pytest.raises(InputError, match="'paper', not with 'table3'"):
        experiment_table(sweep, compare="table3")


def test_without_axes_the_table_is_that_of_a_run(sweep):
    sweep |= {"axes": {}, "paper": "table2"}
    sweep["cells"] = [
        {**sweep["cells"][0], "method": name, "label": name.upper(), "axes": {}}
        for name in ("hstu", "oracle", "text20")
    ]
    sweep["rows"] = [row for row in sweep["rows"] if row["cell"] < 3]
    heading, _, *rows = cells(markdown(experiment_table(sweep, compare="paper")))
    assert heading[:3] == ["Method", "DF", "MF"] and heading[-1] == "Paper tokens"
    assert [row[0] for row in rows if not row[0].startswith("*")] == ["TEXT20", "HSTU", "ORACLE"]
    assert rows[1][-1] == "1,171"


@pytest.fixture
def with_files(sweep, tmp_path):
    """The sweep with prediction files of 400 questions about 40 users; cell 2 and 3 are better than all others."""
    rng = np.random.default_rng(2)
    sweep["rows"], overall = [], {}
    for index, cell in enumerate(sweep["cells"]):
        if cell["status"] != "done":
            continue
        share = 0.7 if index in (2, 3) else 1.0 if cell["method"] == "oracle" else 0.4
        rows = [
            {"id": i, "user": i % 40, "subtask": ("df", "si")[i % 2], "answer": "A", "prediction": "AB"[int(wrong)]}
            for i, wrong in enumerate(rng.random(400) > share)
        ]
        write_predictions(tmp_path / cell["predictions"], rng.permutation(rows))
        entry = score(rows, seed=0)
        overall[index] = entry["overall"]
        for scope, found in {"overall": entry["overall"], **entry["tasks"], **entry["subtasks"]}.items():
            sweep["rows"].append({"cell": index, "scope": scope, **found})
    return sweep, tmp_path


def test_prediction_files_pool_the_seeds_and_resample_users(with_files):
    sweep, folder = with_files
    row = experiment_rows(sweep, folder)[0]
    both = [read_predictions(folder / sweep["cells"][index]["predictions"]) for index in (0, 1)]
    correct = np.array([row["prediction"] == row["answer"] for rows in both for row in rows])
    users = np.array([row["user"] for rows in both for row in rows])
    expected = accuracy(correct, users, seed=0)
    assert row.scores["overall"]["accuracy"] == pytest.approx(expected.accuracy, abs=1e-3)
    assert row.scores["overall"]["ci95"] == list(expected.ci95)
    low, high = experiment_rows(sweep)[0].scores["overall"]["ci95"]
    assert high - low > expected.ci95[1] - expected.ci95[0]  # two seeds know more than one
    assert "a user drawn is drawn in all" in " ".join(
        experiment_table(sweep, rows=experiment_rows(sweep, folder)).notes
    )


def test_the_significantly_best_row_is_marked_baselines_aside(with_files):
    sweep, folder = with_files
    rows = experiment_rows(sweep, folder)
    assert [row.name for row in rows if row.best] == ["Trm++, SL, without text"]
    assert rows[1].best == {"overall", "sequence_understanding", "interest_perception", "df", "si"}
    assert not any(row.best for row in experiment_rows(sweep))  # nothing to test by


def test_a_missing_prediction_file_leaves_the_means_of_ends_and_another_ones_is_refused(with_files):
    sweep, folder = with_files
    path = folder / sweep["cells"][0]["predictions"]
    path.rename(folder / "kept.jsonl")
    assert experiment_rows(sweep, folder) == experiment_rows(sweep)
    (folder / sweep["cells"][2]["predictions"]).rename(path)
    (folder / "kept.jsonl").rename(folder / sweep["cells"][2]["predictions"])
    with pytest.raises(InputError, match="0/predictions.jsonl scores .* but the experiment's results say"):
        experiment_rows(sweep, folder)


def sizes(sweep: dict, exponent: float, noise: float = 0.0) -> dict:
    """The sweep as one over five sizes whose error is 80 · size^-exponent."""
    rng = np.random.default_rng(3)
    widths = [16, 32, 64, 128, 256]
    sweep |= {"axes": {"width": widths}, "paper": "table5", "cells": [], "rows": []}
    for index, width in enumerate(widths):
        size = 12 * 2 * width**2
        value = 100 - 80 * size**-exponent + noise * rng.normal()
        cell = {"method": "trm++", "label": "Trm++", "axes": {"width": width}, "seed": 0, "status": "done"}
        sweep["cells"].append({**cell, "sizes": {"model_size": size}})
        sweep["rows"].append(
            {"cell": index, "scope": "overall", "n": 6000, "accuracy": value, "ci95": [value - 1, value + 1]}
        )
    return sweep


def test_the_power_law_is_found_and_its_interval_holds_it(sweep):
    (law,) = fit_scaling(experiment_rows(sizes(sweep, 0.1)))
    assert (law.coefficient, law.exponent) == pytest.approx((80, 0.1))
    assert law.accuracy_at(law.sizes) == pytest.approx(law.accuracy)
    low, high = law.band(law.sizes)
    assert (low < law.accuracy).all() and (law.accuracy < high).all() and (high - low < 2.5).all()
    assert "error = 80 size^-a with a = 0.1000" in " ".join(experiment_table(sweep).notes)


def test_the_interval_of_the_exponent_covers_it_when_scores_are_as_sure_as_they_say(sweep):
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(200):
        found = sizes(sweep, 0.1)
        for row in found["rows"]:
            row["accuracy"] += rng.normal() / 1.96
            row["ci95"] = [row["accuracy"] - 1, row["accuracy"] + 1]
        (law,) = fit_scaling(experiment_rows(found))
        low, high = np.quantile(law.draws[:, 1], [0.025, 0.975])
        covered += low <= 0.1 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_users_are_resampled_where_predictions_are_at_hand(with_files):
    sweep, folder = with_files
    for index, cell in enumerate(sweep["cells"][:8]):
        cell |= {"axes": {"inputs": "full"}, "label": f"size {index // 2}"}
    sizes_of = {0: 1e4, 1: 1e5, 2: 1e6, 3: 1e7}
    sweep["axes"] = {"size": list(sizes_of)}
    sweep["cells"] = sweep["cells"][:8]
    for index, cell in enumerate(sweep["cells"]):
        cell |= {"label": "Trm++", "axes": {"size": index // 2}, "sizes": {"model_size": sizes_of[index // 2]}}
    sweep["rows"] = [row for row in sweep["rows"] if row["cell"] < 8]
    (law,) = fit_scaling(experiment_rows(sweep, folder))
    assert law.resampled == "users resampled" and len(law.draws) == 2000
    low, high = np.quantile(law.draws[:, 1], [0.025, 0.975])
    assert low < law.exponent < high


def test_the_papers_law_fits_its_points_better_than_a_line_in_log_size():
    law = paper_scaling()
    residual = law.accuracy - law.accuracy_at(law.sizes)
    slope, start = np.polyfit(np.log(law.sizes), law.accuracy, 1)
    line = law.accuracy - start - slope * np.log(law.sizes)
    assert (residual**2).sum() < (line**2).sum()
    assert law.exponent == pytest.approx(0.0745, abs=1e-3)


def test_fit_power_law_is_least_squares_in_logarithms():
    rng = np.random.default_rng(5)
    x, errors = np.array([1.0, 10, 50, 200]), rng.uniform(10, 60, (7, 4))
    coefficient, exponent = fit_power_law(x, errors)
    for index in range(7):
        slope, start = np.polyfit(np.log(x), np.log(errors[index]), 1)
        assert (coefficient[index], exponent[index]) == pytest.approx((np.exp(start), -slope))


def test_too_few_sizes_or_two_axes_make_no_law(sweep):
    two = sizes(sweep, 0.1)
    two["cells"], two["rows"] = two["cells"][:2], two["rows"][:2]
    assert fit_scaling(experiment_rows(two)) == []
    both = sizes(sweep, 0.1)
    both["axes"]["depth"] = [2]
    for cell in both["cells"]:
        cell["axes"]["depth"] = 2
    assert fit_scaling(experiment_rows(both)) == []


def test_everything_is_written_and_read_again(with_files, tmp_path):
    sweep, folder = with_files
    home = tmp_path / "experiments" / "pretraining"
    home.mkdir(parents=True)
    (home / "results.json").write_text(json.dumps(sweep))
    paths = write_experiment(load_experiment(home), home, "paper", folder)
    assert paths[0] == home / "pretraining.txt"
    tables = {
        f"{name}.{kind}" for name in ("pretraining", "pretrain", "comparisons") for kind in ("txt", "md", "tex", "csv")
    }
    assert tables <= {path.name for path in paths}
    assert {path.name for path in paths} | {"results.json"} == {path.name for path in home.iterdir()}
    assert "**" in (home / "pretraining.md").read_text()


def test_the_scaling_figure_is_written_where_there_is_a_law(sweep, tmp_path):
    pytest.importorskip("matplotlib")
    sweep = sizes(sweep, 0.1) | {"comparisons": []}
    assert [path.name for path in write_experiment(sweep, tmp_path)][4:] == ["accuracy.png", "scaling.png"]
