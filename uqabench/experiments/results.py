"""From artefacts to the rows of results.json: scores, seconds, and paired comparisons."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from uqabench.artifact import Artifact
from uqabench.plan.methods import Method, rated
from uqabench.questions.scoring import best_methods, compare, is_correct, read_predictions
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


def comparisons(folders: dict[str, Path], methods: list[Method], rule: str) -> list[dict[str, Any]]:
    """Paired tests on the same questions: the best embedding method against the baselines in every scope; overall,
    every embedding method against them, the text methods against each other and the best against the rest."""
    rows = {name: read_predictions(folder / "predictions.jsonl") for name, folder in folders.items()}
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
        for scope in scopes:
            if scope == "overall" or scope in asked or asked & set(TASKS.get(scope, ())):
                result.append({"a": a, "b": b, **compare(rows[a], rows[b], scope=scope, rule=rule, seed=0)})
    return result


def flags(folders: dict[str, Path], rule: str) -> list[dict[str, Any]]:
    """What the judges say against the questions (`questions.scoring.flags`); nothing unless both answered."""
    if not all(name in folders for name in JUDGES):
        return []
    return judge_flags(*(read_predictions(folders[name] / "predictions.jsonl") for name in JUDGES), rule=rule, seed=0)


def best(folders: dict[str, Path], rule: str) -> dict[str, str]:
    """By scope, the method that is significantly better than every other one, baselines and controls aside."""
    names = [name for name in folders if group(name) not in ASIDE]
    if len(names) < 2:
        return {}
    return best_methods(
        {name: read_predictions(folders[name] / "predictions.jsonl") for name in names}, rule=rule, seed=0
    )
