"""Claims of the paper against answers whose truth is planted, and the page made of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from uqabench.questions.scoring import scope_mask
from uqabench.report.claims import CLAIMS, Finding, findings_of, weighted_sum
from uqabench.report.findings import findings_page, read_experiments
from uqabench.report.paper import paper_table
from uqabench.report.rows import Answers, ScoreRow

USERS, EACH = 60, 14
SUBTASKS = np.tile(["df", "mf", "ip", "ap", "li", "si", "it"], USERS * EACH // 7)
OWNERS = np.repeat(np.arange(USERS), EACH)


def answered(method: str, right: float | dict[str, float], seed: int = 0, **axes: str) -> ScoreRow:
    """A row whose answers are right with a probability, of all sub-tasks or of each."""
    chance = np.array([right[name] if isinstance(right, dict) else right for name in SUBTASKS])
    correct = np.random.default_rng(seed).random(len(chance)) < chance
    scores = {"overall": {"accuracy": 100 * float(correct.mean()), "ci95": [0.0, 100.0], "n": len(correct)}}
    return ScoreRow(method, method, axes, scores, seeds=(0,), answers=Answers(correct, SUBTASKS, OWNERS))


def by_text(experiment: str, rows: list[ScoreRow]) -> dict[str, Finding]:
    return {finding.text: finding for finding in findings_of(experiment, rows)}


ENCODERS = {"gru4rec": 0.3, "sasrec": 0.4, "mamba4rec": 0.3, "hstu": 0.6, "trm++": 0.7}


@pytest.fixture
def encoders() -> list[ScoreRow]:
    rows = [answered(name, right, seed) for seed, (name, right) in enumerate(ENCODERS.items())]
    return [*rows, answered("text20", 0.7, 10), answered("text50", 0.9, 11), answered("oracle", 1.0)]


def test_a_weighted_sum_is_the_sum_of_accuracies(encoders):
    terms = [(encoders[4], "overall", 1.0), (encoders[3], "action_prediction", -0.5)]
    value, (low, high) = weighted_sum(terms)
    answers = encoders[3].answers
    asked = scope_mask(answers.subtasks, "action_prediction")
    assert value == pytest.approx(100 * encoders[4].answers.correct.mean() - 50 * answers.correct[asked].mean())
    assert low < value < high


def test_the_interval_is_the_paired_one(encoders):
    """Two rows that answer alike but for ten questions: the interval of the difference knows that, and is narrow."""
    row = encoders[4]
    correct = row.answers.correct.copy()
    correct[:10] = ~correct[:10]
    other = ScoreRow("x", "x", answers=Answers(correct, SUBTASKS, OWNERS))
    _, (low, high) = weighted_sum([(row, "overall", 1.0), (other, "overall", -1.0)])
    _, (single_low, single_high) = weighted_sum([(row, "overall", 1.0)])
    assert high - low < 0.5 * (single_high - single_low)


def test_planted_truth_decides_the_claims(encoders):
    found = by_text("encoders", encoders)
    assert len(found) == sum(claim.experiment == "encoders" for claim in CLAIMS)
    assert found["HSTU and Trm++ lead the other encoders"].verdict == "holds"
    assert found["It is worse at interest perception"].verdict == "holds"
    beats_text = "The best embedding is better than fifty items of text at the next item (IP)"
    assert found[beats_text].verdict == "does not hold"
    assert found["SASRec equals HSTU on sequence understanding"].verdict == "does not hold"
    lead = found["HSTU and Trm++ lead the other encoders"]
    table = {cell.method: cell.scores["overall"] for cell in paper_table("table2").cells}
    mean = np.mean([table["hstu"], table["trm++"]]) - np.mean([table[n] for n in ("gru4rec", "sasrec", "mamba4rec")])
    assert lead.paper == pytest.approx(mean)


@pytest.mark.parametrize(
    ("expects", "interval", "verdict"),
    [
        ("above", (0.1, 2), "holds"), ("above", (-2, -0.1), "does not hold"), ("above", (-1, 1), "cannot tell"),
        ("below", (-2, -0.1), "holds"), ("below", (0.1, 2), "does not hold"), ("below", (-1, 0), "cannot tell"),
        ("near", (-2, 2.5), "holds"), ("near", (3.5, 9), "does not hold"), ("near", (-1, 4), "cannot tell"),
    ],
)  # fmt: skip
def test_the_whole_interval_decides(expects, interval, verdict):
    assert Finding("x", expects, 0.0, sum(interval) / 2, interval).verdict == verdict


def test_a_claim_whose_lines_are_missing_is_left_out(encoders):
    kept = [row for row in encoders if row.method not in ("text50", "hstu", "trm++")]
    assert set(by_text("encoders", kept)) == {
        "The best embedding answers about as well as twenty items of text",
        "Match features are everybody's weakest sub-task",
    }
    assert findings_of("model-size", kept) == []


@pytest.mark.parametrize(("gain", "verdict"), [(0.08, "holds"), (-0.08, "does not hold")])
def test_growth_with_size_is_a_slope_a_doubling(gain, verdict):
    """Size doubles nearly seven times between the outer ones of the paper's eight."""
    cells = paper_table("table5").cells
    rows = []
    for index, cell in enumerate(cells):
        row = answered("trm++", 0.5 + gain * (index - 3.5) * 0.5, index, size=next(iter(cell.settings[0])))
        rows.append(row)
    found = by_text("model-size", rows)["Accuracy grows with the encoder's size"]
    assert found.verdict == verdict and found.unit == "points a doubling"
    log_size = np.log2([cell.model_size for cell in cells])
    assert found.paper == pytest.approx(np.polyfit(log_size, [cell.scores["overall"] for cell in cells], 1)[0])


def test_a_claim_about_a_sub_task_that_was_not_asked_is_left_out(encoders):
    kept = [
        replace(row, answers=Answers(*(of[SUBTASKS != "ip"] for of in (row.answers.correct, SUBTASKS, OWNERS))))
        for row in encoders
    ]
    found = by_text("encoders", kept)
    assert found and not any("(IP)" in text for text in found)


def test_the_page_of_an_experiment(sweep, tmp_path):
    """From files alone: results and predictions as an experiment leaves them."""
    axes = {"weights": ["pre-trained", "untrained"]}
    cells, rows = [], []
    for index, weights in enumerate(axes["weights"]):
        correct = np.random.default_rng(index).random(len(SUBTASKS)) < (0.9, 0.3)[index]
        place = tmp_path / "evaluate" / str(index) / "predictions.jsonl"
        place.parent.mkdir(parents=True)
        lines = [
            {"id": i, "user": int(user), "cut": 9, "subtask": name, "prediction": "AB"[not good], "answer": "A"}
            for i, (user, name, good) in enumerate(zip(OWNERS, SUBTASKS, correct, strict=True))
        ]
        place.write_text("".join(json.dumps(line) + "\n" for line in lines))
        cells.append({**sweep["cells"][0], "axes": {"weights": weights}, "seed": 0, "status": "done", "error": None})
        cells[-1]["predictions"] = str(place.relative_to(tmp_path))
        score = {"accuracy": 100 * float(correct.mean()), "ci95": [0.0, 100.0], "n": len(correct)}
        rows.append({"cell": index, "scope": "overall", **score})
    results = {**sweep, "name": "controls", "paper": None, "seeds": [0], "axes": axes, "cells": cells, "rows": rows}
    pair = {
        "difference": 60.0,
        "ci95": [55.0, 65.0],
        "p_value": 0.001,
        "p_holm": 0.001,
        "n": len(SUBTASKS),
        "users": 60,
    }
    unsure = {**pair, "difference": 1.5, "ci95": [-0.5, 3.5], "p_holm": 0.2}
    twin = {"method": "trm++", "twin": "trm++", "cells": [0], "twin_cells": [1], "seeds": [0], **pair}
    results["twins"] = [{**twin, "tasks": {"action_prediction": unsure}}]
    file = tmp_path / "experiments" / "controls" / "results.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(results))
    page = findings_page(read_experiments([tmp_path]))
    assert page == findings_page(read_experiments([file.parent]))
    assert "## Data set synthetic, language model demo, preset demo" in page
    (line,) = [line for line in page.splitlines() if line.startswith("| Trm++")]
    overall = [f"{row['accuracy']:.2f}" for row in rows]
    expected = ["Trm++", *overall, r"+60.00 [+55.00, +65.00]\*\*", "+1.50 [-0.50, +3.50]"]
    assert [cell.strip() for cell in line.strip("|").split("|")] == expected
