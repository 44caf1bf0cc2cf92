"""What the judges object to, in results and in the main table; and levels as columns of their own."""

from __future__ import annotations

import numpy as np
import pytest

from uqabench.questions.scoring import flags
from uqabench.questions.statistics import above, paired_above
from uqabench.report import FORMATS, main_table, probe_table
from uqabench.settings.results import check_run_results


def rows(right, subtask="ip", level=None):
    """Predictions about 100 users, of which those of `right` are right."""
    return [
        {"id": i, "user": i % 100, "subtask": subtask, "prediction": "A" if ok else "B", "answer": "A"}
        | ({"level": level} if level else {})
        for i, ok in enumerate(right)
    ]


def test_a_short_cut_and_a_history_that_tells_nothing_are_flagged():
    rng = np.random.default_rng(0)
    open_, closed = rng.random(1000) < 0.4, rng.random(1000) < 0.25
    found = flags(rows(open_), rows(open_), seed=0)
    assert [(flag["scope"], flag["flag"]) for flag in found] == [("ip", "short-cut"), ("ip", "no-headroom")]
    assert found[0]["no_history"] == pytest.approx(100 * open_.mean()) and found[0]["p_value"] < 0.05
    better = closed | (rng.random(1000) < 0.3)
    assert flags(rows(closed), rows(better), seed=0) == []
    assert [f["scope"] for f in flags(rows(closed, level="natural"), rows(closed, level="natural"), seed=0)] == [
        "ip",
        "ip:natural",
    ]


def test_one_sided_tests_hold_their_level_and_find_what_is_there():
    rng = np.random.default_rng(1)
    user = np.repeat(np.arange(60), 10)
    false = np.mean([above(rng.random(600) < 0.27, user, 0.27, n_perm=500, seed=0) < 0.05 for _ in range(200)])
    assert false < 0.1
    assert above(rng.random(600) < 0.4, user, 0.27, seed=0) < 0.01
    a = rng.random(600) < 0.3
    assert paired_above(a | (rng.random(600) < 0.2), a, user, seed=0) < 0.01
    assert paired_above(a, a, user, seed=0) == 1.0
    assert np.isnan(above(np.zeros(0, bool), np.zeros(0, int), 0.27, seed=0))


def test_flags_mark_their_columns_and_are_explained(results):
    results["flags"] = [
        {"scope": "ip", "flag": "short-cut", "no_history": 34.5, "history": 41.0, "p_value": 0.0001, "n": 1164},
        {"scope": "mf", "flag": "no-headroom", "no_history": 25.0, "history": 25.2, "p_value": 0.4, "n": 128},
    ]
    check_run_results(results, "results.json")
    text = str(main_table(results))
    heading = text.splitlines()[1]
    assert "IP†" in heading and "MF‡" in heading and "AP†" not in heading
    flat = " ".join(text.split())
    assert "IP 34.5 and 41.0" in flat and "MF 25.0 and 25.2" in flat
    assert r"IP\textdagger{}" in FORMATS["tex"](main_table(results))
    assert "IP†" in FORMATS["md"](main_table(results))


def test_levels_are_columns_beside_their_sub_task(results):
    assert "nat." not in str(main_table(results))
    for entry in results["methods"].values():
        entry["levels"] = {
            "ip:natural": {"accuracy": 41.25, "ci95": [40.0, 42.0], "n": 900},
            "ip:matched": {"accuracy": 26.5, "ci95": [25.0, 28.0], "n": 264},
        }
    table = main_table(results)
    lines = str(table).splitlines()
    assert lines[1].split()[3:7] == ["Avg", "IP", "mat.", "nat."]
    assert max(map(len, lines)) <= 130
    record = FORMATS["csv"](table).splitlines()
    assert "ip:natural" in record[0] and "41.25" in record[1]
    assert "IP natural" in FORMATS["md"](table)


def test_the_table_of_probes(results):
    assert probe_table(results) is None
    scores = {key: results["methods"]["hstu"][key] for key in ("overall", "tasks", "subtasks")}
    results["probes"] = {"hstu": {"states": scores, "soft tokens": scores}}
    check_run_results(results, "results.json")
    table = probe_table(results)
    (section,) = table.sections
    assert section.title == "HSTU"
    assert [row[0].value for row in section.rows] == ["states", "soft tokens", "language model"]
    assert section.rows[0][-1].value == results["methods"]["hstu"]["overall"]["accuracy"]
    for render in FORMATS.values():
        assert "soft tokens" in render(table)
