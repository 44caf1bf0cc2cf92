"""The column "Over untrained" in every format, and the rows that it belongs to."""

from __future__ import annotations

import csv
import io

import pytest

from uqabench.report.experiment import experiment_table
from uqabench.report.render import FORMATS
from uqabench.report.rows import experiment_rows, run_rows
from uqabench.report.tables import main_table
from uqabench.settings.results import check_run_results


def lead(method, difference, p, **cells):
    record = {"method": method, "twin": f"{method}@untrained", "seeds": [0], "difference": difference}
    record |= {"ci95": [difference - 1.0, difference + 1.5], "p_value": p, "p_holm": min(1.0, 2 * p)}
    return {**record, "n": 7192, "users": 247, **cells}


@pytest.fixture
def with_twins(results):
    results["methods"]["hstu@untrained"] = results["methods"]["no-history"]
    return check_run_results(results | {"twins": [lead("hstu", 3.21, 0.001), lead("gru4rec", -1.04, 0.2)]}, "here")


def test_the_lead_stands_beside_its_method_and_nowhere_else(with_twins):
    rows = {row.method: row.over_twin for row in run_rows(with_twins)}
    assert {name for name, of_twin in rows.items() if of_twin} == {"hstu", "gru4rec"}
    table = main_table(with_twins)
    at = [column.heading for column in table.columns].index("Over untrained")
    cells = {row[0].value: row[at] for section in table.sections for row in section.rows}
    assert (cells["HSTU"].value, cells["HSTU"].interval, cells["HSTU"].best) == (3.21, (2.21, 4.71), True)
    assert (cells["GRU4Rec"].value, cells["GRU4Rec"].best) == (-1.04, False)
    assert cells["SASRec"].value is None and cells["HSTU@untrained"].value is None
    assert [section.title for section in table.sections] == ["Text-based", "Embedding-based", "Controls", "Baselines"]
    assert any("untrained twin" in note for note in table.notes)


def test_every_format_shows_it(with_twins):
    table = main_table(with_twins)
    text = {name: render(table) for name, render in FORMATS.items()}
    assert "+3.2* [+2.2, +4.7]" in text["txt"] and "-1.0 [-2.0, +0.5]" in text["txt"]
    assert "**+3.2** [+2.2, +4.7]" in text["md"]
    assert r"\textbf{$+$3.2} [$+$2.2, $+$4.7]" in text["tex"]
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(text["csv"]))}
    assert rows["hstu"]["over_untrained"] == "3.21" and rows["hstu"]["over_untrained_p_holm"] == "0.002"
    assert rows["sasrec"]["over_untrained"] == ""


def test_a_run_without_twins_has_no_such_column(results):
    table = main_table(results)
    assert all(column.heading != "Over untrained" for column in table.columns)
    assert not any("twin" in note for note in table.notes)


def test_an_experiment_s_lead_belongs_to_the_row_of_its_cells(sweep):
    sweep["twins"] = [lead("trm++", 2.0, 0.001, cells=[0, 1], twin_cells=[2, 3]), lead("trm++", 9.0, 1.0, cells=[999])]
    rows = experiment_rows(sweep)
    assert [row.over_twin["difference"] for row in rows if row.over_twin] == [2.0]
    (row,) = (row for row in rows if row.over_twin)
    assert row.axes == sweep["cells"][0]["axes"] and row.seeds == (0, 1)
    assert "+2.0* [+1.0, +3.5]" in str(experiment_table(sweep))
