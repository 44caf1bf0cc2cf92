"""Tables of what stands behind the scores, against statsmodels and the prediction files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from uqabench.questions.scoring import read_predictions
from uqabench.report.diagnostics import diagnostic_tables
from uqabench.report.found import find
from uqabench.report.results import load_results
from uqabench.report.write import write_tables
from uqabench.vocabulary import LETTERS


def _tables(run):
    return {table.name: table for table in diagnostic_tables(find(run)[0])}


def test_wilson_stands_beside_the_clustered_interval(made_run):
    table = _tables(made_run)["intervals"]
    record = next(record for record in table.records if record["method"] == "HSTU")
    rows = read_predictions(made_run / "evaluate" / "hstu" / "predictions.jsonl")
    right = sum(row["prediction"] == row["answer"] for row in rows)
    low, high = proportion_confint(right, len(rows), method="wilson")
    assert (record["wilson_ci95_low"], record["wilson_ci95_high"]) == pytest.approx((100 * low, 100 * high))
    printed = json.loads((made_run / "results.json").read_text())["methods"]["hstu"]["overall"]
    assert [record["ci95_low"], record["ci95_high"]] == pytest.approx(printed["ci95"], abs=1e-4)
    assert record["n"] == len(rows) and record["ratio"] > 0


def test_letters_and_calibration_are_those_of_the_files(made_run):
    tables = _tables(made_run)
    rows = read_predictions(made_run / "evaluate" / "text20" / "predictions.jsonl")
    record = next(record for record in tables["letters"].records if record["method"] == "Text20")
    for letter in LETTERS:
        assert record[f"given_{letter}"] == pytest.approx(100 * np.mean([row["prediction"] == letter for row in rows]))
        of_letter = [row["prediction"] == letter for row in rows if row["answer"] == letter]
        assert record[f"found_{letter}"] == pytest.approx(100 * np.mean(of_letter))
    calibration = {record["method"]: record for record in tables["calibration"].records}
    assert set(calibration) == {"Text20", "HSTU", "Trm++@q-former"}  # the others have no logits
    share = 100 * np.mean([row["prediction"] == row["answer"] for row in rows])
    assert calibration["Text20"]["accuracy"] == pytest.approx(share)
    bins = [record for record in tables["reliability"].records if record["method"] == "Text20"]
    error = sum(record["n"] * abs(record["accuracy"] - record["confidence"]) for record in bins) / len(rows)
    assert calibration["Text20"]["ece"] == pytest.approx(error)
    assert "variance" not in tables


def test_a_runs_tables_have_them_all(made_run, tmp_path):
    paths = write_tables(load_results(made_run), tmp_path, run_folder=made_run)
    names = {path.stem for path in paths}
    assert {"table2", "intervals", "letters", "calibration", "reliability"} <= names
    assert "ECE" in (tmp_path / "calibration.txt").read_text()
