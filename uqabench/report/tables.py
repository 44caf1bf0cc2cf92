"""The tables of a run: methods by sub-task (the paper's Table 2), pre-training, and paired comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from uqabench.files import write_bytes
from uqabench.report.model import Cell, Column, Section, Table
from uqabench.report.render import FORMATS
from uqabench.report.results import Results, is_ranking
from uqabench.vocabulary import BASELINES, ENCODERS, GROUPS, SUBTASKS, TASKS, display_name, group

_ORDER = ("text20", "text50", *ENCODERS[:3], "mamba2", *ENCODERS[3:], *BASELINES)


def main_table(results: Results) -> Table:
    """Accuracy of every method by sub-task and task, overall with its 95 % interval, and prompt tokens (Table 2)."""
    columns = [Column("Method")]
    keys: list[tuple[str, str]] = []
    for task, subtasks in TASKS.items():
        span = display_name(task)
        columns += [Column(subtask.upper(), span=span) for subtask in subtasks]
        columns.append(Column("Avg", alone=f"{span} avg", span=span))
        keys += [*(("subtasks", subtask) for subtask in subtasks), ("tasks", task)]
    columns += [Column("Overall"), Column("Tokens", decimals=0, fixed=True)]

    def row(name: str) -> list[Cell]:
        method = results["methods"][name]
        scores = [Cell(method.get(level, {}).get(key, {}).get("accuracy")) for level, key in keys]
        overall = method["overall"]
        return [
            Cell(display_name(name)),
            *scores,
            Cell(overall["accuracy"], tuple(overall["ci95"])),
            Cell(method.get("avg_tokens")),
        ]

    rows = {name: row(name) for name in ordered(results["methods"])}
    _mark_best(rows, columns, {index: max for index in range(1, len(columns) - 1)})
    records = [_main_record(name, results["methods"][name], keys) for name in rows]
    return Table("table2", columns, _sections(rows), records, _main_notes(results))


def pretrain_table(results: Results) -> Table | None:
    """Recall@k and NDCG@k in percent and perplexity by encoder, beside popularity; None without such results."""
    pretrain = results.get("pretrain") or {}
    found = {metric for metrics in pretrain.values() for metric in metrics if is_ranking(metric)}
    metrics = sorted(found, key=lambda metric: (not metric.lower().startswith("recall"), int(metric.split("@")[1])))
    if any("perplexity" in of_encoder for of_encoder in pretrain.values()):
        metrics.append("perplexity")
    if not metrics:
        return None
    columns = [Column("Encoder"), *map(_metric_column, metrics)]
    rows = {
        name: [Cell(display_name(name)), *(Cell(pretrain[name].get(metric)) for metric in metrics)]
        for name in ordered(pretrain)
    }
    best = {index: min if metric == "perplexity" else max for index, metric in enumerate(metrics, start=1)}
    _mark_best(rows, columns, best)
    records = [{"encoder": name, **{metric: pretrain[name].get(metric) for metric in metrics}} for name in rows]
    return Table(
        "pretrain", columns, _sections(rows), records, ["Recall and NDCG in percent. * best encoder of the column."]
    )


def comparison_table(results: Results) -> Table | None:
    """Paired differences between methods on the same questions; None without such results."""
    comparisons = results.get("comparisons") or []
    if not comparisons:
        return None
    columns = [
        Column("Questions of"),
        Column("Difference", signed=True),
        Column("p", decimals=4, fixed=True),
        Column("n", decimals=0, fixed=True),
    ]
    pairs: dict[tuple[str, str], list[list[Cell]]] = {}
    for c in comparisons:
        row = [
            Cell(_scope_name(c["scope"])),
            Cell(c["difference"], tuple(c["ci95"])),
            Cell(c["p_value"]),
            Cell(c["n"]),
        ]
        pairs.setdefault((c["a"], c["b"]), []).append(row)
    sections = [Section(f"{display_name(a)} minus {display_name(b)}", rows) for (a, b), rows in pairs.items()]
    records = [
        {
            **{key: c[key] for key in ("a", "b", "scope", "difference")},
            **_bounds(c),
            "p_value": c["p_value"],
            "n": c["n"],
        }
        for c in comparisons
    ]
    notes = [
        "Differences in percentage points with 95 % intervals, on the same questions; p is two-sided.",
        "Users are the unit of both; p is not adjusted for the number of comparisons.",
    ]
    return Table("comparisons", columns, sections, records, notes)


def all_tables(results: Results) -> list[Table]:
    """The tables that these results can fill."""
    tables = (main_table(results), pretrain_table(results), comparison_table(results))
    return [table for table in tables if table is not None]


def write_tables(results: Results, folder: Path | str) -> list[Path]:
    """Write every table in every format, as NAME.txt, .md, .tex and .csv in `folder`; returns the paths."""
    paths = []
    for table in all_tables(results):
        for suffix, render in FORMATS.items():
            path = Path(folder) / f"{table.name}.{suffix}"
            write_bytes(path, render(table).encode())
            paths.append(path)
    return paths


def ordered(names: Sequence[str] | dict[str, Any]) -> list[str]:
    """The paper's order, each method before its variants; unknown ones after, as they come."""
    names = list(names)

    def rank(name: str) -> tuple[int, int, bool, int]:
        base = name.split("@")[0]
        of_base = [other for other in names if other.split("@")[0] == base]
        place = _ORDER.index(base) if base in _ORDER else len(_ORDER) + names.index(of_base[0])
        return GROUPS.index(group(name)), place, "@" in name, names.index(name)

    return sorted(names, key=rank)


def _sections(rows: dict[str, list[Cell]]) -> list[Section]:
    sections = [Section(title, [row for name, row in rows.items() if group(name) == title]) for title in GROUPS]
    return [section for section in sections if section.rows]


def _mark_best(rows: dict[str, list[Cell]], columns: list[Column], best: dict[int, Callable[..., float]]) -> None:
    """Mark, among methods that are no baselines, the best of each column, and what equals it as printed."""
    candidates = [row for name, row in rows.items() if group(name) != "Baselines"]
    for index, choose in best.items():
        values = [row[index].value for row in candidates if isinstance(row[index].value, (int, float))]
        if len(values) == 0:
            continue
        winner = round(choose(values), columns[index].decimals)
        for row in candidates:
            cell = row[index]
            if isinstance(cell.value, (int, float)) and round(cell.value, columns[index].decimals) == winner:
                row[index] = Cell(cell.value, cell.interval, best=True)


def _main_record(name: str, method: dict[str, Any], keys: list[tuple[str, str]]) -> dict[str, Any]:
    overall = method["overall"]
    record = {"method": name, "group": group(name)}
    record |= {key: method.get(level, {}).get(key, {}).get("accuracy") for level, key in keys}
    record |= {"overall": overall["accuracy"], **_bounds(overall), "n": overall["n"]}
    record["avg_tokens"] = method.get("avg_tokens")
    seconds = method.get("seconds", {})
    return record | {f"seconds_{stage}": seconds.get(stage) for stage in ("pretrain", "align", "evaluate")}


def _bounds(cell: dict[str, Any]) -> dict[str, float]:
    return {"ci95_low": cell["ci95"][0], "ci95_high": cell["ci95"][1]}


def _main_notes(results: Results) -> list[str]:
    notes = ["Accuracy in percent; the interval of Overall is 95 %. * best of the column, baselines aside."]
    largest = max(results["methods"].values(), key=lambda method: method["overall"]["n"])
    counts = [
        f"{subtask.upper()} {largest['subtasks'][subtask]['n']:,}"
        for subtasks in TASKS.values()
        for subtask in subtasks
        if subtask in largest.get("subtasks", {})
    ]
    if counts:
        notes.append(f"Questions: {', '.join(counts)}; {largest['overall']['n']:,} in all.")
    return notes


def _metric_column(metric: str) -> Column:
    if metric == "perplexity":
        return Column("Perplexity", decimals=1, fixed=True)
    kind, cut = metric.split("@")
    span = "Recall@" if kind.lower() == "recall" else "NDCG@"
    return Column(cut, alone=f"{span}{cut}", span=span)


def _scope_name(scope: str) -> str:
    return scope.upper() if scope in SUBTASKS else display_name(scope).lower()
