"""Costs as rows, tables and plots: arithmetic of prices, and fronts against a comparison of all pairs."""

from __future__ import annotations

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uqabench.report.efficiency import efficiency_rows, efficiency_table, write_efficiency
from uqabench.report.pareto import pareto_front


def costs(tokens, rate, soft=0, encoder=None):
    found = {
        "machine": {"name": "a processor", "threads": 1, "load": None},
        "model": {"name": None, "random_weights": False, "parameters": 10, "weight_bytes": 40, "dtype": "float32"},
        "tokens": {
            "input": {"mean": tokens, "p95": tokens * 2},
            "soft": soft,
            "other": {"tokenizer": "qwen", "mean": 3 * tokens, "p95": 4 * tokens},
            "shared_by_users": 1,
            "shared_by_questions": 2.0,
            "computed": tokens / 2,
        },
        "prompt_flops": 1e9 * tokens,
        "cache_bytes": 1e3 * tokens,
        "first_token_seconds": {"median": 0.01, "p95": 0.02},
        "questions_per_second": {"1": 100.0, "16": rate},
        "best_batch": 16,
        "peak_bytes": 5_000_000,
        "peak_bytes_best_batch": 6_000_000,
        "evaluation_questions_per_second": 500.0,
    }
    return found if encoder is None else {**found, "encoder": {"seconds": encoder, "parameters": 9}}


RESULTS = {
    "llm": "demo",
    "cells": [
        {"method": method, "label": label, "axes": {}, "seed": 0}
        for method, label in (("text20", "Text20"), ("oracle", "Oracle"), ("trm++@q-former", "Trm++@q-former"))
    ],
    "rows": [
        {"cell": cell, "scope": scope, "accuracy": accuracy, "ci95": [accuracy - 2, accuracy + 2]}
        for cell, accuracy in ((0, 50.0), (1, 100.0), (2, 40.0))
        for scope in ("overall", "df")
    ],
}
COSTS = {0: costs(200.0, 400.0), 2: costs(20.0, 800.0, soft=16, encoder=0.5)}


def test_rows_join_scores_and_costs():
    text, soft = efficiency_rows(RESULTS, COSTS, {"input": 2.0, "output": 8.0, "machine_hour": 3.6})
    assert (text["label"], text["accuracy"], text["ci95"]) == ("Text20", 50.0, [48.0, 52.0])
    assert text["accuracy_per_thousand_tokens"] == 250.0
    # A million prompts of 200 tokens at 2 a million, an answer at 8 a million, 2,500 seconds at 3.6 an hour.
    assert text["cost_per_million"] == pytest.approx(400 + 8 + 2.5)
    assert [soft[f"seconds_at_{n}_questions_a_user"] for n in (1, 10, 100)] == pytest.approx([0.51, 0.06, 0.015])
    assert efficiency_rows(RESULTS, COSTS, {})[0]["cost_per_million"] is None
    assert efficiency_rows({**RESULTS, "rows": []}, COSTS, {})[0]["accuracy_per_thousand_tokens"] is None


def test_files_and_the_papers_table(tmp_path):
    rows = efficiency_rows(RESULTS, COSTS, {"input": 1.0})
    paths = write_efficiency(rows, tmp_path)
    assert {path.name for path in paths} >= {f"efficiency.{suffix}" for suffix in ("txt", "md", "tex", "csv")}
    text = (tmp_path / "efficiency.txt").read_text()
    for number in ("1,171.2", "2,498.2", "133.3", "148.3", "53.88"):
        assert number in text, number
    with (tmp_path / "efficiency.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [float(row["tokens"]) for row in read] == [200.0, 20.0]
    assert len(efficiency_table(rows).columns) == len(efficiency_table(efficiency_rows(RESULTS, COSTS, {})).columns) + 1


def test_plots_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    write_efficiency(efficiency_rows(RESULTS, COSTS, {}), tmp_path)
    for name in ("tokens", "latency", "memory"):
        assert (tmp_path / f"pareto-{name}.png").read_bytes().startswith(b"\x89PNG")


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_the_front_holds_what_nothing_beats(points):
    front = pareto_front([cost for cost, _ in points], [accuracy for _, accuracy in points])

    def beaten(i):
        (cost, accuracy) = points[i]
        return any(c <= cost and a >= accuracy and (c, a) != (cost, accuracy) for c, a in points)

    assert {points[i] for i in front} == {points[i] for i in range(len(points)) if not beaten(i)}
    assert [points[i] for i in front] == sorted({points[i] for i in front})
