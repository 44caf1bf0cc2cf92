"""The five goals against answers whose truth is planted, each met and missed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from uqabench.questions.scoring import scope_mask, write_predictions
from uqabench.questions.statistics import paired_difference
from uqabench.report.findings import Experiment, findings_page
from uqabench.report.goals import SEEN, Goal, Measured, goals_of
from uqabench.report.rows import Answers, ScoreRow

USERS, EACH, SEEDS = 150, 28, (0, 1)
ASKED = np.tile(["df", "mf", "ip", "ap", "li", "si", "it"], USERS * EACH // 7)
OWNERS = np.repeat([str(user) for user in range(USERS)], EACH)
SUBTASKS, USER_OF = np.tile(ASKED, len(SEEDS)), np.tile(OWNERS, len(SEEDS))

Right = float | dict[str, float]


def drawn(right: Right, seed: int) -> np.ndarray:
    """Which answers of all seeds are right, each with its sub-task's probability."""
    chance = np.array([right.get(name, right[""]) if isinstance(right, dict) else right for name in SUBTASKS])
    return np.random.default_rng(seed).random(len(chance)) < chance


def row_of(method: str, correct: np.ndarray, twin: dict | None = None) -> ScoreRow:
    scopes = ("overall", "df", "ip", "ap", "li", "si", "it")
    scores = {
        scope: {"accuracy": 100 * float(correct[scope_mask(SUBTASKS, scope)].mean()), "ci95": [0.0, 100.0], "n": 1}
        for scope in scopes
    }
    answers = Answers(correct, SUBTASKS, USER_OF)
    return ScoreRow(method, method, {}, scores, seeds=SEEDS, answers=answers, over_twin=twin)


def gain(difference: float, p: float) -> dict:
    entry = {"difference": difference, "ci95": [difference - 1, difference + 1], "p_value": p, "p_holm": p}
    return {**entry, "n": len(SUBTASKS), "users": USERS}


@pytest.fixture
def measure(tmp_path):
    """`measure({method: right}, probes={method: right}, tokens={method: n}, twins={method: gain})`."""

    def make(methods: dict[str, Right], probes=(), tokens=(), twins=()) -> Measured:
        cells, rows, tokens, twins = [], [], dict(tokens), dict(twins)
        for number, (method, right) in enumerate(methods.items()):
            correct = drawn(right, number)
            rows.append(row_of(method, correct, twins.get(method)))
            probed = dict(probes).get(method)
            parts = None if probed is None else np.split(drawn(probed, 100 + number), len(SEEDS))
            for place, seed in enumerate(SEEDS):
                cell = {"method": method, "label": method, "axes": {}, "seed": seed, "status": "done"}
                cell |= {"soft_tokens": tokens[method]} if method in tokens else {}
                if parts is not None:
                    name = f"probe-{number}-{seed}.jsonl"
                    lines = [
                        {"id": i, "user": int(user), "subtask": name_, "prediction": "BA"[bool(hit)], "answer": "A"}
                        for i, (user, name_, hit) in enumerate(zip(OWNERS, ASKED, parts[place], strict=True))
                    ]
                    write_predictions(tmp_path / name, reversed(lines))
                    cell["probe_answers"] = {SEEN: name}
                cells.append(cell)
        results = {"schema": 1, "kind": "experiment", "name": "goals", "dataset": "synthetic", "llm": "train"}
        results |= {"preset": "planted", "axes": {}, "cells": cells, "rows": [], "seeds": list(SEEDS)}
        return Measured(results, rows, tmp_path)

    return make


METHODS: dict[str, Right] = {
    "text50": 0.7,
    "gru4rec@segments": {"": 0.75, "df": 0.9, "ip": 0.6, "ap": 0.55},
    "sasrec@segments": {"": 0.55, "df": 0.6, "ip": 0.4, "ap": 0.4},
    "q": 0.99,
    "gru4rec@segments+untrained": 0.5,
    "history-vector@segments": {"": 0.9, "li": 0.7},
    "no-history-model": 0.25,
    "history-model": {"": 0.9, "ap": 0.4},
}
TOKENS = {"gru4rec@segments": 8, "sasrec@segments": 8, "q": 16, "gru4rec@segments+untrained": 8,
          "history-vector@segments": 8}  # fmt: skip
PROBES = {"gru4rec@segments": {"": 0.77, "it": 0.95}, "sasrec@segments": 0.6, "history-vector@segments": 0.91}
TWIN_CELLS = [2 * list(METHODS).index("gru4rec@segments+untrained")]
TWINS = {
    "gru4rec@segments": {
        **gain(9.0, 0.001), "twin_cells": TWIN_CELLS, "tasks": {"action_prediction": gain(4.0, 0.02)},
    }
}  # fmt: skip


def found(goals: list[Goal]) -> dict[tuple[int, str], bool]:
    return {(goal.number, goal.text): goal.met for goal in goals}


def test_each_goal_says_what_was_planted(measure):
    assert found(goals_of(measure(METHODS, PROBES, TOKENS, TWINS))) == {
        (1, "gru4rec@segments minus text50, overall"): True,
        (1, "gru4rec@segments, df"): True,
        (2, "gru4rec@segments minus its untrained twin, overall"): True,
        (2, "gru4rec@segments minus its untrained twin, action prediction"): False,
        (3, "no-history-model, ip"): True,
        (3, "history-model, ip"): True,
        (3, "gru4rec@segments minus no-history-model, ip"): True,
        (3, "no-history-model, ap"): True,
        (3, "history-model, ap"): False,
        (3, "gru4rec@segments minus no-history-model, ap"): True,
        (4, "Probe minus language model, gru4rec@segments, df"): True,
        (4, "Probe minus language model, gru4rec@segments, li"): True,
        (4, "Probe minus language model, gru4rec@segments, si"): True,
        (4, "Probe minus language model, gru4rec@segments, it"): False,
        (4, "Probe minus language model, history-vector@segments, df"): True,
        (4, "Probe minus language model, history-vector@segments, li"): False,
        (4, "Probe minus language model, history-vector@segments, si"): True,
        (4, "Probe minus language model, history-vector@segments, it"): True,
        (5, "Detectable difference between two of 2 encoders, overall, at most"): False,
        (5, "Pairs of encoders told apart whose probes stand in the same order"): True,
    }


def test_values_are_those_of_the_paired_comparison(measure):
    measured = measure(METHODS, PROBES, TOKENS, TWINS)
    goals = {goal.text: goal for goal in goals_of(measured)}
    method, other = measured.named("gru4rec").answers, measured.named("sasrec").answers
    of_it = SUBTASKS == "it"
    probe = drawn(PROBES["gru4rec@segments"], 101)
    expected = paired_difference(probe[of_it], method.correct[of_it], USER_OF[of_it], seed=0)
    low, high = expected.ci95
    assert goals["Probe minus language model, gru4rec@segments, it"].found == (
        f"{expected.difference:+.1f} [{low:+.1f}, {high:+.1f}]"
    )
    apart = paired_difference(method.correct, other.correct, USER_OF, seed=0)
    assert goals["Detectable difference between two of 2 encoders, overall, at most"].found == f"{apart.detectable:.2f}"
    assert goals["Pairs of encoders told apart whose probes stand in the same order"].found == "1 of 1"
    assert goals["gru4rec@segments minus its untrained twin, overall"].found == "+9.0 [+8.0, +10.0], p = 0.0010"


def test_a_probe_that_turns_the_order_round_is_seen(measure):
    turned = {**PROBES, "gru4rec@segments": 0.5, "sasrec@segments": 0.8}
    goals = {goal.text: goal for goal in goals_of(measure(METHODS, turned, TOKENS))}
    order = goals["Pairs of encoders told apart whose probes stand in the same order"]
    assert (order.found, order.met) == ("0 of 1", False)


@pytest.mark.parametrize(
    ("missing", "gone"),
    [("text50", {1}), ("no-history-model", {3}), ("history-model", {3}), ("sasrec@segments", {5})],
)
def test_a_goal_without_its_methods_is_left_out(measure, missing, gone):
    kept = {name: right for name, right in METHODS.items() if name != missing}
    goals = goals_of(measure(kept, PROBES, TOKENS, TWINS))
    assert {1, 2, 3, 4, 5} - {goal.number for goal in goals} == gone


def test_without_probes_or_answers_nothing_is_said_of_them(measure):
    measured = measure(METHODS, {}, TOKENS, TWINS)
    assert {goal.number for goal in goals_of(measured)} == {1, 2, 3, 5}
    silent = replace(measured, rows=[replace(row, answers=None) for row in measured.rows])
    assert {goal.number for goal in goals_of(silent)} == {2}


def test_the_page_shows_the_table_where_all_five_are_there(measure):
    measured = measure(METHODS, PROBES, TOKENS, TWINS)
    page = findings_page([Experiment(measured.results, list(measured.rows), measured.run)])
    lines = [line for line in page.splitlines() if line.startswith(("| 1 ", "| 2 ", "| 3 ", "| 4 ", "| 5 "))]
    goals = goals_of(measured)
    assert len(lines) == len(goals) and "(`goals`, 2 seeds)" in page
    for line, goal in zip(lines, goals, strict=True):
        assert [cell.strip() for cell in line.strip("|").split("|")] == [
            str(goal.number), goal.text, goal.wanted, goal.found, "met" if goal.met else "**not met**",
        ]  # fmt: skip
    without = Experiment(measured.results, [row for row in measured.rows if row.method != "text50"], measured.run)
    assert "Does the score measure the encoder?" not in findings_page([without])
