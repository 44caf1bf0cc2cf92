"""The rows of every score table: a method (with its settings), its scores by scope, and how sure they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from uqabench.errors import InputError
from uqabench.questions.scoring import align_answers, read_predictions, scope_mask
from uqabench.questions.statistics import accuracy, significantly_best
from uqabench.settings.results import ExperimentCell, ExperimentResults, RunResults, Score, TwinDifference
from uqabench.vocabulary import ASIDE, SCOPES, display_name, group

BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Answers:
    """A row's answers over all its seeds: which were right (Q,) bool, their sub-task keys (Q,) and users (Q,).

    `correct` has the questions in one order for all rows of an experiment whose seeds are the same.
    """

    correct: np.ndarray
    subtasks: np.ndarray
    users: np.ndarray


@dataclass(frozen=True)
class ScoreRow:
    """One row: a method with one combination of the axes' values.

    `scores` holds, by scope, accuracy and interval in percent (over several seeds: the mean) and the number of
    questions a seed; `spread` the standard deviation over seeds. `status` is "done" if a seed is; `failures` says why
    others are not. `best` holds the scopes in which the row is significantly better than every other one;
    `over_twin` its lead over its untrained twin.
    """

    method: str
    label: str
    axes: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    status: str = "done"
    failures: tuple[str, ...] = ()
    avg_tokens: float | None = None
    sizes: dict[str, float | None] = field(default_factory=dict)
    pretrain: dict[str, float | None] = field(default_factory=dict)
    seconds: dict[str, float | None] = field(default_factory=dict)
    best: frozenset[str] = frozenset()
    answers: Answers | None = None
    over_twin: TwinDifference | None = None

    @property
    def group(self) -> str:
        """The section of the table that it stands in."""
        return group(self.method)

    @property
    def name(self) -> str:
        """Label and axes' values in one text."""
        return ", ".join([self.label, *map(setting_name, self.axes.values())])


def setting_name(value: Any) -> str:
    """How tables spell a value of an axis."""
    return value if isinstance(value, str) else json.dumps(value)


def run_rows(results: RunResults) -> list[ScoreRow]:
    """A run's methods as rows, in the file's order."""
    best = results.get("best", {})
    over_twin = {record["method"]: record for record in results.get("twins", [])}
    return [
        ScoreRow(
            name,
            display_name(name),
            scores={
                "overall": entry["overall"],
                **entry.get("tasks", {}),
                **entry.get("subtasks", {}),
                **entry.get("levels", {}),
            },
            avg_tokens=entry.get("avg_tokens"),
            seconds=entry.get("seconds", {}),
            best=frozenset(scope for scope, winner in best.items() if winner == name),
            over_twin=over_twin.get(name),
        )
        for name, entry in results["methods"].items()
    ]


def experiment_rows(results: ExperimentResults, run_folder: Path | str | None = None) -> list[ScoreRow]:
    """An experiment's rows: cells that differ in nothing but the seed become one.

    Where the prediction files of all finished cells lie in `run_folder`, intervals pool the seeds' answers and resample
    users, and the significantly best rows are known. Otherwise a row of several seeds has the mean of the seeds'
    interval ends, which does not shrink with their number.
    """
    scores: dict[int, dict[str, Score]] = {}
    for row in results["rows"]:
        score = {"accuracy": row["accuracy"], "ci95": row["ci95"], "n": row["n"]}
        scores.setdefault(row["cell"], {})[row["scope"]] = score
    merged: dict[str, list[int]] = {}
    for index, cell in enumerate(results["cells"]):
        merged.setdefault(json.dumps([cell["method"], cell["label"], cell["axes"]], sort_keys=True), []).append(index)
    answers = None if run_folder is None else _read_answers(results, scores, Path(run_folder))
    over_twin = {index: record for record in results.get("twins", []) for index in record.get("cells", [])}
    rows = []
    for indices in merged.values():
        cells = [results["cells"][index] for index in indices]
        done = sorted((index for index in indices if index in scores), key=lambda i: results["cells"][i]["seed"])
        row = _merge(cells, [results["cells"][index] for index in done], [scores[index] for index in done])
        if answers is not None and done:
            row = _pool(row, [answers[index] for index in done])
        rows.append(replace(row, over_twin=next((over_twin[index] for index in indices if index in over_twin), None)))
    return _mark_best(_in_order(rows, results))


def _merge(cells: list[ExperimentCell], done: list[ExperimentCell], scores: list[dict[str, Score]]) -> ScoreRow:
    """The row of `cells`, which differ in their seed; those that are `done` have `scores`."""
    scopes = [scope for scope in dict.fromkeys(scope for of_cell in scores for scope in of_cell)]
    found: dict[str, Score] = {}
    spread = {}
    for scope in scopes:
        of_scope = [of_cell[scope] for of_cell in scores if scope in of_cell]
        values = [score["accuracy"] for score in of_scope]
        ends = [fmean(ends) for ends in zip(*(score["ci95"] for score in of_scope), strict=True)]
        found[scope] = {"accuracy": fmean(values), "ci95": ends, "n": max(score["n"] for score in of_scope)}
        if len(values) > 1:
            spread[scope] = stdev(values)
    first = cells[0]
    broken = [cell for cell in cells if cell["status"] == "failed"]
    return ScoreRow(
        first["method"],
        first["label"],
        first["axes"],
        found,
        spread,
        tuple(cell["seed"] for cell in done),
        "done" if done else "failed" if broken else "missing",
        tuple(f"seed {cell['seed']}: {_one_line(cell.get('error') or 'no reason given')}" for cell in broken),
        _mean([cell.get("avg_tokens") for cell in done]),
        *(_means([cell.get(key) or {} for cell in done]) for key in ("sizes", "pretrain", "seconds")),
    )


def _one_line(text: str) -> str:
    return " ".join(text.encode(errors="replace").decode().split()).rstrip(".")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _means(tables: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    keys = dict.fromkeys(key for table in tables for key in table)
    return {key: _mean([table.get(key) for table in tables]) for key in keys}


def _in_order(rows: list[ScoreRow], results: ExperimentResults) -> list[ScoreRow]:
    """Controls and baselines last, methods as they first come, and within a method the axes' values as `axes` lists
    them."""
    labels = list(dict.fromkeys((row.method, row.label) for row in rows))
    axes = results["axes"]

    def rank(row: ScoreRow) -> tuple[int, int, list[int]]:
        places = [axes[axis].index(row.axes[axis]) if axis in row.axes else -1 for axis in axes]
        behind = ASIDE.index(row.group) + 1 if row.group in ASIDE else 0
        return behind, labels.index((row.method, row.label)), places

    return sorted(rows, key=rank)


def _read_answers(
    results: ExperimentResults, scores: dict[int, dict[str, Score]], folder: Path
) -> dict[int, Answers] | None:
    """The answers of each finished cell, sorted by question; None unless there is a prediction file for every one."""
    files = {index: results["cells"][index].get("predictions") for index in scores}
    if not all(name and (folder / name).is_file() for name in files.values()):
        return None
    rule = results.get("rule", "letter")
    found = {}
    for index, name in files.items():
        correct, subtasks, users = align_answers([sorted(read_predictions(folder / name), key=lambda r: r["id"])], rule)
        overall = scores[index].get("overall")
        if overall and abs(100 * correct.mean() - overall["accuracy"]) > 0.01:
            raise InputError(
                f"{folder / name} scores {100 * correct.mean():.2f} %, but the experiment's results say "
                f"{overall['accuracy']:.2f} %: run the experiment again, so that they belong together."
            )
        found[index] = Answers(correct[0], subtasks, users)
    return found


def _pool(row: ScoreRow, answers: list[Answers]) -> ScoreRow:
    """`row` with the intervals of its seeds' answers taken together: a user drawn is drawn in all of them."""
    pooled = Answers(
        np.concatenate([of_seed.correct for of_seed in answers]),
        np.concatenate([of_seed.subtasks for of_seed in answers]),
        np.concatenate([of_seed.users for of_seed in answers]),
    )
    scores = dict(row.scores)
    for scope in row.scores:
        asked = scope_mask(pooled.subtasks, scope)
        if asked.any():
            interval = accuracy(pooled.correct[asked], pooled.users[asked], seed=BOOTSTRAP_SEED).ci95
            scores[scope] = {**scores[scope], "ci95": list(interval)}
    return replace(row, scores=scores, answers=pooled)


def comparable(rows: Sequence[ScoreRow]) -> bool:
    """Whether all rows have answers to the same questions, so that they can be compared question by question."""
    first = rows[0].answers if rows else None
    return first is not None and all(
        row.answers is not None
        and row.seeds == rows[0].seeds
        and np.array_equal(row.answers.users, first.users)
        and np.array_equal(row.answers.subtasks, first.subtasks)
        for row in rows
    )


def rivals(rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """The rows among which the best is sought: those with scores, controls and baselines aside."""
    return [row for row in rows if row.group not in ASIDE and row.status == "done"]


def _mark_best(rows: list[ScoreRow]) -> list[ScoreRow]:
    """`rows` with `best` set from their answers; none is where the rivals' answers are not comparable."""
    candidates = rivals(rows)
    if len(candidates) < 2 or not comparable(candidates):
        return rows
    correct = np.array([row.answers.correct for row in candidates])
    subtasks, users = candidates[0].answers.subtasks, candidates[0].answers.users
    best: dict[tuple[str, str], set[str]] = {}
    for scope in SCOPES:
        asked = scope_mask(subtasks, scope)
        winner = significantly_best(correct[:, asked], users[asked], seed=BOOTSTRAP_SEED)
        if winner is not None:
            best.setdefault((candidates[winner].method, candidates[winner].name), set()).add(scope)
    return [replace(row, best=frozenset(best.get((row.method, row.name), ()))) for row in rows]
