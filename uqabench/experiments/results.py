"""From artefacts to the rows of results.json: scores, seconds, and paired comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from uqabench.artifact import Artifact
from uqabench.plan.methods import Method, rated
from uqabench.questions.scoring import Row, best_methods, compare_scopes, is_correct, read_predictions
from uqabench.questions.scoring import flags as judge_flags
from uqabench.vocabulary import ASIDE, JUDGES, RIVALS, SCOPES, TASKS, group


def method_entry(metrics: dict[str, Any], seconds: dict[str, float]) -> dict[str, Any]:
    """One method's entry of results.json."""
    keys = ("overall", "tasks", "subtasks", *(("levels",) if "levels" in metrics else ()), "avg_tokens")
    return {**{key: metrics[key] for key in keys}, "seconds": {name: round(s, 3) for name, s in seconds.items()}}


def probe_scores(probes: dict[str, Artifact]) -> dict[str, dict[str, Any]]:
    """Scores of a method's probes by what they read."""
    keys = ("overall", "tasks", "subtasks", "levels")
    read = {place: artifact.json("metrics.json") for place, artifact in probes.items()}
    return {place: {key: metrics[key] for key in keys if key in metrics} for place, metrics in read.items()}


Answers = Mapping[str, Sequence[Row]]
"""Rows of `predictions.jsonl` by method."""


def answers(folders: Mapping[str, Path]) -> dict[str, list[dict[str, Any]]]:
    """What the methods answered whose evaluations lie in these folders."""
    return {name: read_predictions(folder / "predictions.jsonl") for name, folder in folders.items()}


def comparisons(rows: Answers, methods: list[Method], rule: str) -> list[dict[str, Any]]:
    """Paired tests on the same questions: the best embedding method against the baselines in every scope; overall,
    every embedding method against them, the text methods against each other and the best against the rest."""
    encoders = [m.name for m in rated(methods)]
    texts = [m.name for m in methods if m.kind == "text"]
    rivals = [name for name in RIVALS if name in rows]
    pairs = [(b, a, SCOPES) for a, b in combinations(texts, 2)]
    if encoders:
        best = max(encoders, key=lambda name: float(np.mean(is_correct(rows[name], rule))))
        others = [name for name in encoders if name != best]
        pairs = [(best, rival, SCOPES) for rival in (*rivals, *texts)] + pairs
        pairs += [(best, other, ("overall",)) for other in others]
        pairs += [(other, rival, ("overall",)) for other in others for rival in rivals]
    asked = {row["subtask"] for row in next(iter(rows.values()))}
    result = []
    for a, b, scopes in pairs:
        known = [scope for scope in scopes if scope == "overall" or asked & {scope, *TASKS.get(scope, ())}]
        result += [{"a": a, "b": b, **found} for found in compare_scopes(rows[a], rows[b], known, rule=rule, seed=0)]
    return result


def flags(rows: Answers, rule: str) -> list[dict[str, Any]]:
    """What the judges say against the questions (`questions.scoring.flags`); nothing unless both answered."""
    if not all(name in rows for name in JUDGES):
        return []
    return judge_flags(*(rows[name] for name in JUDGES), rule=rule, seed=0)


def best(rows: Answers, rule: str) -> dict[str, str]:
    """By scope, the method that is significantly better than every other one, baselines and controls aside."""
    names = [name for name in rows if group(name) not in ASIDE]
    return best_methods({name: rows[name] for name in names}, rule=rule, seed=0) if len(names) > 1 else {}
