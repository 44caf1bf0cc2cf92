"""From artefacts to the rows of results.json: scores, seconds, and paired comparisons."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from uqabench.experiments.methods import Method
from uqabench.questions.kinds import SUBTASKS, TASKS
from uqabench.questions.scoring import read_predictions
from uqabench.questions.statistics import paired_difference


def method_entry(metrics: dict[str, Any], seconds: dict[str, float]) -> dict[str, Any]:
    """One method's entry of results.json."""
    keys = ("overall", "tasks", "subtasks", "avg_tokens")
    return {**{key: metrics[key] for key in keys}, "seconds": {name: round(s, 3) for name, s in seconds.items()}}


def comparisons(folders: dict[str, Path], methods: list[Method]) -> list[dict[str, Any]]:
    """Paired tests on the same questions: every embedding method against the baselines it has to beat, and the text
    methods and the best of each kind against each other."""
    rows = {name: read_predictions(folder / "predictions.jsonl") for name, folder in folders.items()}
    correct = {name: np.array([row["prediction"] == row["answer"] for row in found]) for name, found in rows.items()}
    result = []
    for a, b in _pairs(methods, correct):
        first = rows[a]
        users = np.unique([row["user"] for row in first], return_inverse=True)[1]
        subtasks = np.array([row["subtask"] for row in first])
        for scope, mask in _scopes(subtasks).items():
            if mask.any():
                found = paired_difference(correct[a][mask], correct[b][mask], users[mask], seed=0)
                result.append(
                    {
                        "a": a,
                        "b": b,
                        "scope": scope,
                        "difference": found.difference,
                        "ci95": list(found.ci95),
                        "p_value": found.p_value,
                        "n": int(mask.sum()),
                    }
                )
    return result


def _scopes(subtasks: np.ndarray) -> dict[str, np.ndarray]:
    scopes = {"overall": np.ones(len(subtasks), dtype=bool)}
    scopes.update({task: np.isin(subtasks, members) for task, members in TASKS.items()})
    scopes.update({name: subtasks == name for name in SUBTASKS})
    return scopes


def _pairs(methods: list[Method], correct: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    encoders = [m.name for m in methods if m.kind == "encoder"]
    texts = [m.name for m in methods if m.kind == "text"]
    rivals = [name for name in ("majority", "popularity", "seen-option", "no-history", "shuffled") if name in correct]
    pairs = [(encoder, rival) for encoder in encoders for rival in rivals]
    pairs += [(b, a) for a, b in combinations(texts, 2)]
    if encoders:
        best = max(encoders, key=lambda name: correct[name].mean())
        pairs += [(best, text) for text in texts]
        pairs += [(best, other) for other in encoders if other != best]
    return pairs
