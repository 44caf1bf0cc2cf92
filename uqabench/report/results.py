"""Reading `results.json`, the contract between a run and everything that reports it.

`{"schema": 1, "dataset", "llm", "seed", "split_seed", "versions", "methods": {NAME: {"overall": CELL, "tasks":
{TASK: CELL}, "subtasks": {SUBTASK: CELL}, "avg_tokens", "seconds": {STAGE: number}}}, "pretrain": {NAME: {METRIC:
number}}, "comparisons": [{"a", "b", "scope", "difference", "ci95", "p_value", "n"}], "mix": {SUBTASK: number}}`, where
a CELL is `{"accuracy", "ci95": [lo, hi], "n"}` in percent. A data set without questions of a sub-task has no cell for
it; "pretrain", "comparisons", "mix", "avg_tokens" and "seconds" may be missing. Fields beyond these are ignored.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NoReturn

from uqabench.errors import InputError
from uqabench.files import read_json
from uqabench.vocabulary import SUBTASKS, TASKS

SCHEMA = 1

Results = dict[str, Any]


def load_results(path: Path | str) -> Results:
    """Read and check a results file, or the results.json of a run's folder."""
    path = Path(path)
    if path.is_dir():
        path = path / "results.json"
    return validate_results(read_json(path), str(path))


def validate_results(value: Any, where: str = "results") -> Results:
    """`value` if it keeps the contract; InputError names the first field that does not."""
    _mapping(value, where, "the file")
    if value.get("schema") != SCHEMA:
        raise InputError(
            f"{where}: 'schema' is {value.get('schema')!r} and this version reads {SCHEMA}: "
            "report it with the version that wrote it, or run again."
        )
    for field in ("dataset", "llm"):
        if not isinstance(value.get(field), str):
            _wrong(where, field, "a text", value.get(field))
    methods = _mapping(value.get("methods"), where, "methods")
    if not methods:
        _wrong(where, "methods", "a table of at least one method", methods)
    for name, method in methods.items():
        _method(method, where, f"methods.{name}")
    for name, metrics in _mapping(value.get("pretrain", {}), where, "pretrain").items():
        for metric, number in _mapping(metrics, where, f"pretrain.{name}").items():
            if is_ranking(metric) or metric == "perplexity":
                _number(number, where, f"pretrain.{name}.{metric}", low=0, optional=True)
    comparisons = value.get("comparisons", [])
    if not isinstance(comparisons, list):
        _wrong(where, "comparisons", "a list", comparisons)
    for index, comparison in enumerate(comparisons):
        _comparison(comparison, where, f"comparisons[{index}]")
    return value


def is_ranking(metric: str) -> bool:
    """Whether a pre-training metric is recall or NDCG at a cut-off, as in "recall@10"."""
    kind, _, cut = metric.lower().partition("@")
    return kind in ("recall", "ndcg") and cut.isdigit()


def _method(method: Any, where: str, field: str) -> None:
    _mapping(method, where, field)
    _cell(method.get("overall"), where, f"{field}.overall")
    tasks = _mapping(method.get("tasks", {}), where, f"{field}.tasks")
    subtasks = _mapping(method.get("subtasks", {}), where, f"{field}.subtasks")
    for cells, name, known in ((tasks, "tasks", set(TASKS)), (subtasks, "subtasks", set(SUBTASKS))):
        for key, cell in cells.items():
            if key not in known:
                raise InputError(f"{where}: '{field}.{name}.{key}' is unknown: known are {', '.join(sorted(known))}.")
            _cell(cell, where, f"{field}.{name}.{key}")
    _number(method.get("avg_tokens"), where, f"{field}.avg_tokens", low=0, optional=True)
    for stage, seconds in _mapping(method.get("seconds", {}), where, f"{field}.seconds").items():
        _number(seconds, where, f"{field}.seconds.{stage}", low=0, optional=True)


def _cell(cell: Any, where: str, field: str) -> None:
    _mapping(cell, where, field)
    _number(cell.get("accuracy"), where, f"{field}.accuracy", low=0, high=100)
    _interval(cell.get("ci95"), where, f"{field}.ci95", 0, 100)
    _count(cell.get("n"), where, f"{field}.n")


def _comparison(comparison: Any, where: str, field: str) -> None:
    _mapping(comparison, where, field)
    for name in ("a", "b", "scope"):
        if not isinstance(comparison.get(name), str):
            _wrong(where, f"{field}.{name}", "a text", comparison.get(name))
    _number(comparison.get("difference"), where, f"{field}.difference", low=-100, high=100)
    _interval(comparison.get("ci95"), where, f"{field}.ci95", -100, 100)
    _number(comparison.get("p_value"), where, f"{field}.p_value", low=0, high=1)
    _count(comparison.get("n"), where, f"{field}.n")


def _interval(value: Any, where: str, field: str, low: float, high: float) -> None:
    if not isinstance(value, list) or len(value) != 2:
        _wrong(where, field, "two numbers [low, high]", value)
    for end, number in zip(("low", "high"), value, strict=True):
        _number(number, where, f"{field} ({end} end)", low=low, high=high)
    if value[0] > value[1]:
        _wrong(where, field, "two numbers in ascending order", value)


def _mapping(value: Any, where: str, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _wrong(where, field, "an object", value)
    return value


def _count(value: Any, where: str, field: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        _wrong(where, field, "a number of questions", value)


def _number(value: Any, where: str, field: str, *, low: float, high: float = math.inf, optional: bool = False) -> None:
    if value is None and optional:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        _wrong(where, field, "a finite number", value)
    if not low <= value <= high:
        limits = f"at least {low}" if high == math.inf else f"from {low} to {high}"
        _wrong(where, field, f"a number {limits}", value)


def _wrong(where: str, field: str, expected: str, value: Any) -> NoReturn:
    shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
    found = "missing" if value is None else shown
    raise InputError(f"{where}: '{field}' must be {expected}, but is {found}: run `uqabench run` again to rewrite it.")
