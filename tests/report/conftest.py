"""Results as JSON gives them (a run of fourteen methods, two variants and a user's own encoder, and an experiment), and
run folders with made-up answers to real questions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uqabench.data.store import InteractionStore
from uqabench.questions.kinds import KINDS
from uqabench.questions.questions import QuestionSet
from uqabench.questions.scoring import score, write_predictions
from uqabench.vocabulary import LETTERS, SUBTASKS

COUNTS = {"df": 1508, "mf": 128, "ip": 1164, "ap": 1458, "li": 797, "si": 1373, "it": 764}
TASKS = {
    "sequence_understanding": ("df", "mf"),
    "action_prediction": ("ip", "ap"),
    "interest_perception": ("li", "si", "it"),
}
NAMES = (
    *("oracle", "trm++@q-former", "hstu", "my_pkg.net:Tower", "gru4rec", "sasrec", "mamba4rec", "trm++", "text50"),
    *("text20", "text20@zero-shot", "uniform", "majority", "popularity", "seen-option", "no-history", "shuffled"),
)


def _cell(accuracy: float, n: int) -> dict:
    low, high = max(0.0, accuracy - 1.3), min(100.0, accuracy + 1.1)
    return {"accuracy": round(accuracy, 4), "ci95": [round(low, 4), round(high, 4)], "n": n}


@pytest.fixture
def results() -> dict:
    rng = np.random.default_rng(0)
    methods = {}
    for name in NAMES:
        scores = {subtask: 100.0 if name == "oracle" else rng.uniform(20, 80) for subtask in COUNTS}

        def over(subtasks, scores=scores):
            n = sum(COUNTS[s] for s in subtasks)
            return _cell(sum(scores[s] * COUNTS[s] for s in subtasks) / n, n)

        methods[name] = {
            "overall": over(COUNTS),
            "tasks": {task: over(subtasks) for task, subtasks in TASKS.items()},
            "subtasks": {subtask: over((subtask,)) for subtask in COUNTS},
            "avg_tokens": 1171.23 if name.startswith("text") else 133,
            "seconds": {"pretrain": 12.5, "align": 3.0, "evaluate": 1.25},
        }
    ks = (1, 5, 10, 20, 50, 100)
    pretrain = {
        name: {
            **{f"recall@{k}": round(scale * k**0.6, 4) for k in ks},
            **{f"ndcg@{k}": round(0.8 * scale * k**0.4, 4) for k in ks},
            "perplexity": 1500 / scale,
            "users": 247,
        }
        for name, scale in (("popularity", 3.0), ("hstu", 2.5), ("gru4rec", 2.0))
    }
    comparisons = [
        {"a": a, "b": b, "scope": scope, "difference": d, "ci95": [d - 2, d + 3], "p_value": p, "n": 7192}
        for a, b, scope, d, p in (
            ("trm++", "shuffled", "overall", 12.345, 0.0001),
            ("trm++", "shuffled", "interest_perception", 20.5, 0.0001),
            ("text50", "text20", "df", -1.5, 0.31),
        )
    ]
    value = {"schema": 1, "dataset": "synthetic", "llm": "demo", "seed": 0, "split_seed": 1, "versions": {"torch": "2"}}
    value |= {"methods": methods, "pretrain": pretrain, "comparisons": comparisons, "mix": COUNTS}
    return json.loads(json.dumps(value))


@pytest.fixture
def sweep() -> dict:
    """An experiment on two axes with two seeds, in which a row failed, one is missing, and an oracle has no axes."""
    rng = np.random.default_rng(1)
    axes = {"objective": ["SL", "CL"], "inputs": ["full", "without text", "without side"]}
    value = {"schema": 1, "kind": "experiment", "name": "pretraining", "title": "Objectives and inputs"}
    value |= {"paper": "table3", "preset": "demo", "dataset": "synthetic", "llm": "demo", "split_seed": 0}
    value |= {"seeds": [0, 1], "versions": {}, "mix": {"df": 600}, "axes": axes, "cells": [], "rows": []}

    def add(method: str, label: str, settings: dict, seed: int, status: str, error: str | None = None) -> None:
        cell = {"method": method, "label": label, "axes": settings, "seed": seed, "status": status, "error": error}
        cell |= {"avg_tokens": 22.5, "sizes": {"model_size": 98304}, "pretrain": {"recall@10": 7.0 + seed}}
        cell |= {"seconds": {"align": 3.0}, "predictions": f"evaluate/{len(value['cells'])}/predictions.jsonl"}
        value["cells"].append(cell)
        for scope in ("overall", *TASKS, "df") if status == "done" else ():
            score = _cell(100.0 if method == "oracle" else rng.uniform(30, 60), 6000)
            value["rows"].append({"cell": len(value["cells"]) - 1, "scope": scope, **score})

    for objective in axes["objective"]:
        for inputs in axes["inputs"]:
            for seed in value["seeds"]:
                status = {("CL", "without text"): "failed", ("CL", "without side"): "missing"}.get((objective, inputs))
                error = "Out of memory." if status == "failed" else None
                add("trm++", "Trm++", {"objective": objective, "inputs": inputs}, seed, status or "done", error)
    add("oracle", "Oracle", {}, 0, "done")
    pair = {"difference": 1.5, "ci95": [0.5, 2.5], "p_value": 0.01, "n": 6000, "users": 217, "detectable": 1.4}
    value["comparisons"] = [{"a": "SL, full", "b": "CL, full", "scope": "overall", **pair}]
    return json.loads(json.dumps(value))


METHODS = {"text20": 0.5, "hstu": 0.55, "trm++@q-former": 0.45, "uniform": 0.25, "oracle": 1.0}
"""Methods and how often they are right."""


def _stage(folder: Path, stage: str, content: str, inputs: dict[str, str]) -> Path:
    folder.mkdir(parents=True)
    manifest = {"stage": stage, "format": 1, "key": content, "content": content, "config": {}, "inputs": inputs}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": {}}))
    return folder


def make_run(folder: Path, store: InteractionStore, questions: QuestionSet, seed: int = 0) -> Path:
    """A finished run's folder. Methods answer at random: right in their share of METHODS, for some users oftener."""
    folder.mkdir(parents=True)
    (folder / "uqabench-run.json").write_text("{}")
    shutil.copytree(store.path, folder / "data" / "synthetic-0")
    asked = _stage(folder / "questions" / "methods-0", "questions", "asked", {})
    questions.save(asked / "evaluation.arrow")
    rng = np.random.default_rng(seed)
    luck = rng.normal(0, 0.15, len(store))
    n, methods = len(questions), {}
    for name, share in METHODS.items():
        label = name.replace("@", "-")
        right = rng.random(n) < (share if share == 1 else np.clip(share + luck[questions.user], 0, 1))
        given = np.where(right, questions.answer, (questions.answer + rng.integers(1, 4, n)) % 4)
        inputs = {"data": store.content_hash, "questions": "asked"}
        if name not in ("uniform", "oracle"):
            aligned = _stage(folder / "align" / label, "align", f"align {name}", {})
            lines = [{"step": step, "loss": 3 / step, "lr": 0.1} for step in range(1, 9)]
            (aligned / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            inputs["align"] = f"align {name}"
        evaluated = _stage(folder / "evaluate" / label, "evaluate", f"evaluate {name}", inputs)
        rows = [
            {
                **{"id": i, "user": int(questions.user[i]), "cut": int(questions.cut[i])},
                **{"subtask": SUBTASKS[questions.subtask[i]], "level": KINDS[questions.kind[i]].level},
                **{
                    "prediction": LETTERS[given[i]],
                    "answer": LETTERS[questions.answer[i]],
                    "tokens": 20,
                    "method": name,
                },
            }
            for i in range(n)
        ]
        rows = [{key: value for key, value in row.items() if value != ""} for row in rows]
        if "align" in inputs:
            logits = rng.normal(0, 1, (n, 4))
            logits[np.arange(n), given] = logits.max(axis=1) + rng.random(n)
            rows = [{**row, "logits": [round(float(x), 4) for x in of]} for row, of in zip(rows, logits, strict=True)]
        write_predictions(evaluated / "predictions.jsonl", rows)
        entry = score(rows, seed=0)
        path = f"evaluate/{label}/predictions.jsonl"
        methods[name] = {key: entry[key] for key in ("overall", "tasks", "subtasks")} | {
            "avg_tokens": 20,
            "predictions": path,
        }
    results: dict[str, Any] = {"schema": 1, "dataset": "synthetic", "llm": "made up", "seed": seed}
    results |= {"methods": methods, "folders": {"data": "data/synthetic-0", "questions": "questions/methods-0"}}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.fixture(scope="session")
def made() -> Callable[..., Path]:
    """`make_run`."""
    return make_run


@pytest.fixture(scope="session")
def made_run(small_store, small_evaluation, tmp_path_factory) -> Path:
    """A run of five methods on the small log's evaluation questions."""
    return make_run(tmp_path_factory.mktemp("made") / "mine", small_store, small_evaluation)


@pytest.fixture(scope="session")
def made_experiment(small_store, small_evaluation, tmp_path_factory) -> Path:
    """An experiment's folder: the method hstu with two lengths of history, whose questions differ, and two seeds."""
    run = tmp_path_factory.mktemp("swept") / "run"
    run.mkdir()
    (run / "uqabench-run.json").write_text("{}")
    cells: list[dict[str, Any]] = []
    rows = []
    asked = {"short": small_evaluation.select(np.arange(30)), "long": small_evaluation}
    for length, questions in asked.items():
        for seed in (0, 1):
            part = make_run(run / f"part-{length}-{seed}", small_store, questions, seed=seed + 2 * (length == "long"))
            for stage in ("evaluate", "align"):
                shutil.copytree(part / stage / "hstu", run / stage / f"hstu-{length}-{seed}")
            for stage, name in (("questions", f"methods-{length}"), ("data", "synthetic-0")):
                if not (run / stage / name).exists():
                    shutil.copytree(next((part / stage).iterdir()), run / stage / name)
            for file in ([run / "questions" / f"methods-{length}"], (run / "evaluate").glob(f"hstu-{length}-*")):
                for folder in file:
                    manifest = folder / "manifest.json"
                    manifest.write_text(manifest.read_text().replace('"asked"', f'"asked {length}"'))
            entry = json.loads((part / "results.json").read_text())["methods"]["hstu"]
            predictions = f"evaluate/hstu-{length}-{seed}/predictions.jsonl"
            cell = {"method": "hstu", "label": "HSTU", "axes": {"length": length}, "seed": seed, "status": "done"}
            scores = {"overall": entry["overall"], **entry["tasks"], **entry["subtasks"]}
            rows += [{"cell": len(cells), "scope": scope, **each} for scope, each in scores.items()]
            cells.append({**cell, "avg_tokens": 20, "predictions": predictions})
            shutil.rmtree(part)
    results = {"schema": 1, "kind": "experiment", "name": "lengths", "title": "Lengths", "dataset": "synthetic"}
    results |= {"llm": "made up", "axes": {"length": ["short", "long"]}, "cells": cells, "rows": rows}
    folder = run / "experiments" / "lengths"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results))
    costs = [
        {
            **{key: cell[key] for key in ("method", "label", "axes", "seed")},
            "first_token_seconds": 0.1,
            "peak_bytes": 5e6,
        }
        for cell in cells
    ]
    (folder / "efficiency.json").write_text(json.dumps({"schema": 1, "rows": costs}))
    return folder
