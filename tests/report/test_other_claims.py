"""Claims about tokens and stability against rows whose truth is planted, and every claim's experiment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from uqabench.experiments.spec import cells, experiment_names, load_experiment
from uqabench.report.claims import CLAIMS, findings_of
from uqabench.report.other_claims import OTHER_CLAIMS, other_findings_of
from uqabench.report.rows import Answers, ScoreRow
from uqabench.settings import run_config

USERS = np.repeat(np.arange(80), 10)


def answered(method, right, seed=0, **settings):
    correct = np.random.default_rng(seed).random(len(USERS)) < right
    subtasks = np.tile(["ip", "df"], len(USERS) // 2)
    scores = {"overall": {"accuracy": 100 * float(correct.mean()), "ci95": [0.0, 100.0], "n": len(correct)}}
    row = ScoreRow(method, method, scores=scores, seeds=(0,), answers=Answers(correct, subtasks, USERS))
    return replace(row, **settings)


def asked(method, tokens):
    return answered(method, 0.5, avg_tokens=tokens)


def diverged(method, **settings):
    reason = "align trm++: the loss became nan at step 3: lower lr or clip, or turn bf16 off."
    return ScoreRow(method, method, seeds=(0,), status="failed", failures=(reason,), **settings)


def found(experiment, rows):
    return {finding.text: finding for finding in other_findings_of(experiment, rows)}


@pytest.mark.parametrize(("tokens", "verdict"), [(2000.0, "holds"), (1000.0, "does not hold"), (1700.0, "holds")])
def test_tokens_saved_are_a_factor_beside_the_papers(tokens, verdict):
    """The paper's is 2,498.19 / 133.28 = 18.7; nine tenths of it are enough."""
    (finding,) = found("encoders", [asked("text50", tokens), asked("trm++", 100.0)]).values()
    assert finding.ours == tokens / 100 and finding.ci95 is None and finding.verdict == verdict
    assert finding.paper == pytest.approx(2498.19 / 133.28)


def test_the_efficiency_experiment_has_both_ends_of_the_range():
    rows = [asked("text20", 1171.23), asked("text50", 2498.19), asked("trm++@mean-pooling", 133.28)]
    both = found("efficiency", [*rows, asked("trm++@q-former", 148.28)])
    assert [f"{finding.ours:.1f}" for finding in both.values()] == ["18.7", "7.9"]
    assert all(finding.ours == pytest.approx(finding.paper) for finding in both.values())
    assert len(found("efficiency", rows)) == 1 and found("efficiency", rows[:2]) == {}


def test_text_that_was_asked_zero_shot_stands_in_and_is_named():
    rows = [asked("text50@zero-shot", 2000.0), asked("trm++", 100.0)]
    (finding,) = found("encoders", rows).values()
    assert finding.note == "text zero-shot"
    rows = [*rows, asked("text50", 3000.0)]
    (finding,) = found("encoders", rows).values()
    assert finding.note == "" and finding.ours == 30
    (finding,) = (f for f in findings_of("encoders", rows[:2]) if "(IP)" in f.text)
    assert finding.note == "text zero-shot"


@pytest.mark.parametrize(("worst", "verdict"), [(0.3, "holds"), (0.69, "cannot tell")])
def test_sensitivity_is_what_the_best_rate_has_over_the_worst(worst, verdict):
    rows = [answered("trm++@q-former+full", right, i) for i, right in enumerate((worst, 0.7, 0.7))]
    rows += [answered("trm++@mean-pooling+full", 0.7, 10 + i) for i in range(3)]
    (finding,) = found("stability", rows).values()
    assert finding.verdict == verdict and finding.paper is None
    accuracy = [row.scores["overall"]["accuracy"] for row in rows]
    assert finding.ours == pytest.approx(np.ptp(accuracy[:3]) - np.ptp(accuracy[3:]))


def test_training_that_diverged_counts_as_chance():
    rows = [diverged("trm++@q-former+full"), answered("trm++@q-former+full", 0.7)]
    rows += [answered("trm++@mean-pooling+full", 0.7, 10 + i) for i in range(2)]
    (finding,) = found("stability", rows).values()
    best = rows[1].scores["overall"]["accuracy"]
    assert finding.ours == pytest.approx(
        best - 25 - abs(rows[2].scores["overall"]["accuracy"] - rows[3].scores["overall"]["accuracy"])
    )
    assert finding.verdict == "holds"
    broken = replace(rows[0], failures=("the disk is full",))
    assert found("stability", [broken, *rows[1:]]) == {}


def test_every_claim_is_about_an_experiment_that_ships():
    shipped = set(experiment_names())
    assert {claim.experiment for claim in (*CLAIMS, *OTHER_CLAIMS)} <= shipped
    stability = load_experiment("stability")
    methods = {cell.method.name for cell in cells(stability, run_config("tiny"))}
    assert methods == {"trm++@q-former+full", "trm++@mean-pooling+full"}
