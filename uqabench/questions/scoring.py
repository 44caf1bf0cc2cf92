"""Predictions as JSON lines, and their score: a run is re-scored from its files, without a model.

A line is one question, in one of two forms:

- ours: `{"id", "user", "cut", "subtask", "prediction", "answer"}` with letters A-D, and optionally `"level"` (of the
  sub-task), `"logits"` (four numbers, one a letter), `"tokens"` (prompt length), `"method"`, and `"text"` (what the
  model generated);
- published: `{"question", "prediction", "answer"}`, where the sub-task is told by a marker in the Chinese question and
  the first entry counts if `answer` is a list.

Rule "letter" compares `prediction` with `answer`. Rule "starts-with", the published one, holds that a prediction is
right when its text starts with the gold answer; it always applies to the published form.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import from_json

from uqabench.errors import InputError
from uqabench.files import write_bytes
from uqabench.questions.statistics import (
    LEVEL,
    Accuracy,
    PairedDifference,
    above,
    accuracy,
    paired_above,
    paired_difference,
    significantly_best,
    wilson,
)
from uqabench.settings.results import PublishedPrediction, QuestionPrediction, check
from uqabench.vocabulary import SCOPES, SUBTASKS, TASKS, subtask_of

RULES = ("letter", "starts-with")
"""How a prediction is compared with the answer; the first where letters' logits answer, the second where text does."""
SHORT_CUT = 27.0
"""Percent that a model without the history may reach: chance and two points."""

Row = Mapping[str, Any]


def scoring_rule(generates: bool) -> str:
    """The rule for a run that does or does not generate its answers as text."""
    return RULES[generates]


def detect_subtask(question: str) -> str:
    """Sub-task key of a published question (`vocabulary.subtask_of`); InputError without one."""
    found = subtask_of(question)
    if found is not None:
        return found
    raise InputError(f"No sub-task's marker occurs in the question {question[:60]!r}: it is not in the published form.")


def write_predictions(path: Path | str, rows: Iterable[Row]) -> None:
    """Write one JSON line a question, aside and renamed; NumPy scalars and arrays are written as plain numbers."""
    lines = []
    for number, row in enumerate(rows, start=1):
        line = json.dumps(dict(row), ensure_ascii=False, default=_plain).encode(errors="surrogatepass")
        _parse(line, f"prediction {number} for {path}")
        lines.append(line)
    write_bytes(path, b"".join(line + b"\n" for line in lines))


def read_predictions(path: Path | str) -> list[dict[str, Any]]:
    """Rows of a predictions file; InputError names file and line of what is broken, cut short or asked twice."""
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"Cannot read the predictions file {path}: {error.strerror or error}.") from error
    rows: list[dict[str, Any]] = []
    first_seen: dict[tuple[Any, Any], int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row = _parse(line, where, last=number == len(lines))
        if "id" in row:
            first = first_seen.setdefault((row.get("method"), row["id"]), number)
            if first != number:
                raise InputError(
                    f"{where}: question {row['id']} stands on line {first} already; remove one of the two."
                )
        rows.append(row)
    if not rows:
        raise InputError(f"{path} holds no predictions: run `uqabench evaluate` again.")
    return rows


def score(rows: Sequence[Row], *, rule: str = "letter", seed: int) -> dict[str, Any]:
    """Score one method: its entry in results.json, accuracies in percent, micro-averaged over questions.

    Returns `{"overall": {"accuracy", "ci95": [lo, hi], "n"}, "tasks": {...}, "subtasks": {...}, "unit", "rule"}`, with
    "levels" ("ip:natural": …) where rows have a level and "avg_tokens" where they have "tokens". Only tasks, sub-tasks
    and levels that have questions appear. Intervals resample users ("unit": "user"), or are Wilson's per question
    ("unit": "question") where rows name no user.
    """
    if not rows:
        raise InputError("There are no predictions to score.")
    correct = is_correct(rows, rule)
    subtasks = np.array([_subtask(row) for row in rows])
    users = np.array([str(row["user"]) for row in rows]) if all("user" in row for row in rows) else None

    def cell(mask: np.ndarray) -> dict[str, Any]:
        if users is None:
            return _cell(wilson(correct[mask]))
        return _cell(accuracy(correct[mask], users[mask], seed=seed))

    masks = {scope: scope_mask(subtasks, scope) for scope in SCOPES}
    entry: dict[str, Any] = {
        "overall": cell(masks["overall"]),
        "tasks": {task: cell(masks[task]) for task in TASKS if masks[task].any()},
        "subtasks": {subtask: cell(masks[subtask]) for subtask in SUBTASKS if masks[subtask].any()},
        "unit": "question" if users is None else "user",
        "rule": "starts-with" if all(map(_is_published, rows)) else rule,
    }
    levels = sorted(
        {name for name in subtasks.tolist() if ":" in name}, key=lambda n: (SUBTASKS.index(n.partition(":")[0]), n)
    )
    if levels:
        entry["levels"] = {name: cell(scope_mask(subtasks, name)) for name in levels}
    if all("tokens" in row for row in rows):
        entry["avg_tokens"] = round(sum(row["tokens"] for row in rows) / len(rows), 2)
    return entry


def score_files(paths: Iterable[Path | str], *, rule: str = "letter", seed: int) -> dict[str, dict[str, Any]]:
    """Score predictions files: `{method: entry}`, a method being the rows' "method" or else the file's stem."""
    by_method: dict[str, list[dict[str, Any]]] = {}
    origin: dict[str, Path | str] = {}
    for path in paths:
        for row in read_predictions(path):
            name = str(row.get("method", Path(path).stem))
            if origin.setdefault(name, path) != path:
                raise InputError(f"{path} and {origin[name]} both hold the method '{name}': score them one at a time.")
            by_method.setdefault(name, []).append(row)
    return {name: score(rows, rule=rule, seed=seed) for name, rows in by_method.items()}


def compare(
    rows_a: Sequence[Row], rows_b: Sequence[Row], *, scope: str = "overall", rule: str = "letter", seed: int
) -> dict[str, Any]:
    """Paired comparison of two methods on the same questions, matched by "id".

    scope: "overall", a task, a sub-task or one of its levels ("ip:natural"). Returns `{"scope", "difference", "ci95":
    [lo, hi], "p_value", "n", "users", "detectable"}` in percentage points (a minus b), from
    `statistics.paired_difference`; what cannot be detected at all is None.
    """
    return compare_scopes(rows_a, rows_b, (scope,), rule=rule, seed=seed)[0]


def compare_scopes(
    rows_a: Sequence[Row], rows_b: Sequence[Row], scopes: Iterable[str], *, rule: str = "letter", seed: int
) -> list[dict[str, Any]]:
    """`compare` in each of the scopes."""
    correct, subtasks, users = align_answers([rows_a, rows_b], rule)
    found = []
    for scope in scopes:
        asked = scope_mask(subtasks, scope)
        if not asked.any():
            raise InputError(f"No question belongs to '{scope}'.")
        difference = paired_difference(*correct[:, asked], users[asked], seed=seed)
        found.append({"scope": scope, **difference_entry(difference)})
    return found


def difference_entry(result: PairedDifference) -> dict[str, Any]:
    """A difference as results files have it, in percentage points with four decimals; `detectable` is None where it is
    not known."""
    return {
        "difference": round(result.difference, 4),
        "ci95": [round(bound, 4) for bound in result.ci95],
        "p_value": result.p_value,
        "n": result.n,
        "users": result.users,
        "detectable": None if math.isnan(result.detectable) else round(result.detectable, 4),
    }


def best_methods(rows: Mapping[str, Sequence[Row]], *, rule: str = "letter", seed: int) -> dict[str, str]:
    """By scope, the method that is significantly better than every other one on the same questions.

    rows: predictions by method, matched by "id". Scopes without such a method are absent; `significantly_best` says
    what significant means.
    """
    names = list(rows)
    correct, subtasks, users = align_answers(list(rows.values()), rule)
    found = {}
    for scope in SCOPES:
        asked = scope_mask(subtasks, scope)
        best = significantly_best(correct[:, asked], users[asked], seed=seed)
        if best is not None:
            found[scope] = names[best]
    return found


def flags(
    no_history: Sequence[Row], history: Sequence[Row], *, rule: str = "letter", seed: int
) -> list[dict[str, Any]]:
    """What the two judges' predictions say against sub-tasks and their levels: entries of results.json.

    A "short-cut" is where the accuracy without history is significantly above SHORT_CUT %, "no-headroom" where the one
    with history is not significantly above it (one-sided tests over users at the 5 % level).
    """
    correct, subtasks, users = align_answers([no_history, history], rule)
    found = []
    scopes = [name for name in SUBTASKS if scope_mask(subtasks, name).any()]
    for scope in (*scopes, *sorted({name for name in subtasks.tolist() if ":" in name})):
        asked = scope_mask(subtasks, scope)
        without, having = correct[:, asked]
        short_cut = above(without, users[asked], SHORT_CUT / 100, seed=seed)
        gained = paired_above(having, without, users[asked], seed=seed)
        accuracies = {
            "no_history": round(100 * float(without.mean()), 4),
            "history": round(100 * float(having.mean()), 4),
        }
        for flag, raised, p in (
            ("short-cut", short_cut < 1 - LEVEL, short_cut),
            ("no-headroom", gained >= 1 - LEVEL, gained),
        ):
            if raised:
                found.append({"scope": scope, "flag": flag, **accuracies, "p_value": p, "n": int(asked.sum())})
    return found


def align_answers(rows: Sequence[Sequence[Row]], rule: str = "letter") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which questions each of M methods answered right, with the questions in one order.

    Returns correct (M, Q) bool, sub-task keys (Q,) (with the level, "ip:natural", where there is one) and users (Q,) as
    text. InputError where the methods answered different questions.
    """
    for row in (row for of_method in rows for row in of_method):
        if "id" not in row or "user" not in row:
            raise InputError("A paired comparison needs predictions with 'id' and 'user' in every row.")
    first, *others = ({row["id"]: row for row in of_method} for of_method in rows)
    for other in others:
        for i in first.keys() ^ other.keys():
            raise InputError(
                f"Question {i} was answered by one of the two methods only: compare equal sets of questions."
            )
        for i, row in first.items():
            for field in ("subtask", "user", "answer"):
                if row[field] != other[i][field]:
                    raise InputError(
                        f"Question {i} has another '{field}' in the two files: they answer different sets."
                    )
    correct = np.array([is_correct([of_method[i] for i in first], rule) for of_method in (first, *others)])
    asked = list(first.values())
    return correct, np.array([_subtask(row) for row in asked]), np.array([str(row["user"]) for row in asked])


def is_correct(rows: Sequence[Row], rule: str = "letter") -> np.ndarray:
    """(Q,) bool: which predictions are right under `rule` (see the module's text)."""
    if rule not in RULES:
        raise InputError(f"The scoring rule '{rule}' is unknown: choose {' or '.join(RULES)}.")
    return np.array([_is_right(row, rule) for row in rows], dtype=bool)


def scope_mask(subtasks: np.ndarray, scope: str) -> np.ndarray:
    """(Q,) bool: which questions, given their sub-task keys (Q,) as from `align_answers`, belong to a scope: "overall",
    a task, a sub-task or one of its levels."""
    if scope == "overall":
        return np.ones(len(subtasks), dtype=bool)
    if scope.partition(":")[0] not in (*TASKS, *SUBTASKS):
        raise InputError(f"'{scope}' is no task or sub-task: choose overall, {', '.join((*TASKS, *SUBTASKS))}.")
    if ":" in scope:
        return subtasks == scope
    return np.isin([name.partition(":")[0] for name in subtasks.tolist()], TASKS.get(scope, (scope,)))


def _is_right(row: Row, rule: str) -> bool:
    if _is_published(row):
        return row["prediction"].startswith(_gold(row))
    if rule == "letter":
        return row["prediction"] == row["answer"]
    return row.get("text", row["prediction"]).startswith(row["answer"])


def _is_published(row: Row) -> bool:
    return "subtask" not in row and "question" in row


def _gold(row: Row) -> str:
    answer = row["answer"]
    return answer if isinstance(answer, str) else answer[0]


def _subtask(row: Row) -> str:
    """The sub-task of a row, with its level if it has one."""
    if "subtask" not in row:
        return detect_subtask(row["question"])
    return f"{row['subtask']}:{row['level']}" if row.get("level") else row["subtask"]


def _cell(result: Accuracy) -> dict[str, Any]:
    return {
        "accuracy": round(result.accuracy, 4),
        "ci95": [round(bound, 4) for bound in result.ci95],
        "n": result.n,
    }


def _parse(line: bytes, where: str, *, last: bool = False) -> dict[str, Any]:
    """The row that a line holds, checked; `last` says that no newline follows the line."""
    try:
        row = from_json(line, allow_inf_nan=False)
    except ValueError as error:
        if last:  # a finished file ends with a newline, so nothing follows it
            raise InputError(f"{where} is cut short: run `uqabench evaluate` again to write it whole.") from error
        raise InputError(f"{where} is not valid JSON ({error}): correct or remove the line.") from error
    if not isinstance(row, dict):
        raise InputError(f"{where} holds {type(row).__name__}, not an object with 'prediction' and 'answer'.")
    published = _is_published(row)
    check(row, PublishedPrediction if published else QuestionPrediction, where, "correct or remove the line")
    if published:
        try:
            detect_subtask(row["question"])
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    return row


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON.")
