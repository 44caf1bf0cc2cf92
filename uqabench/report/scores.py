"""How rows of scores become a table: in the shape of the paper's Table 2, or of its Tables 3 to 6."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from uqabench.errors import InputError
from uqabench.report.model import BEST, TERMINAL_WIDTH, Cell, Column, Section, Table
from uqabench.report.paper import PaperCell, paper_table
from uqabench.report.rows import ScoreRow, setting_name
from uqabench.settings.results import ExperimentResults, RunResults, TwinDifference
from uqabench.vocabulary import BASELINES, ENCODERS, GROUPS, SCOPES, SUBTASKS, TASK_INITIALS, TASKS, display_name, group

_ORDER = ("text20", "text50", *ENCODERS[:3], "mamba2", *ENCODERS[3:], *BASELINES)
WIDE = 130  # characters in a terminal, with the paper's numbers or the lead over twins beside
_TWIN_COLUMN = Column("Over untrained", decimals=1, fixed=True, signed=True)
_TWIN_NOTE = (
    "Over untrained: Overall minus that of the untrained twin (same architecture, seed, adapter and language model, no "
    "pre-training), in points with its 95 % interval, on the same questions, users as the unit, seeds taken together; "
    "marked like the best where p < 0.05 (Holm over the column)."
)


def score_table(
    name: str,
    rows: Sequence[ScoreRow],
    notes: Sequence[str],
    *,
    axes: Sequence[str] = (),
    paper: str | None = None,
    marks: Mapping[str, str] = MappingProxyType({}),
) -> Table:
    """Scores of `rows`: without axes by sub-task and task (Table 2), with axes by task (Tables 3 to 6).

    paper: the key of the paper's table whose numbers stand beside. marks: by scope, what stands behind its heading.
    The records for CSV have the sub-tasks always, and their levels where there are any.
    """
    columns, body = leading_columns("Method", rows, axes)
    levels = levels_of(rows)
    scores, keys = _task_columns() if axes else subtask_columns(levels, marks)
    extras = _extra_columns(rows, axes)
    twins = any(row.over_twin for row in rows)
    columns += [*scores, *([_TWIN_COLUMN] if twins else []), *(column for column, _ in extras)]
    for row, cells in zip(rows, body, strict=True):
        cells += [score_cell(row, key) for key in keys]
        cells += [_twin_cell(row)] if twins else []
        cells += [Cell(value_of(row)) for _, value_of in extras]
    records = [_record(row, axes) for row in rows]
    notes = [*notes, *([_TWIN_NOTE] if twins else [])]
    if paper:
        beside, by_rank = paper_table(paper).beside(rows)
        columns += _add_paper(body, beside)
        records = [record | _paper_record(cell) for record, cell in zip(records, beside, strict=True)]
        notes.append(f"Paper: its Table {paper.removeprefix('table')} (Taobao's click log, Qwen2.5-3B-Instruct).")
        if by_rank:
            notes.append("No setting here is one of the paper's: the paper's stand beside ours in order.")
    sections = sections_of(rows, body, titled=not axes)
    is_wide = paper or twins or (levels and not axes)
    return Table(name, columns, sections, _filled(records), notes, WIDE if is_wide else TERMINAL_WIDTH)


def check_compare(compare: str | None) -> None:
    """Raise InputError unless `compare` is None or "paper"."""
    if compare not in (None, "paper"):
        raise InputError(f"Results can be compared with 'paper', not with '{compare}'.")


def paper_order(names: Sequence[str]) -> list[int]:
    """Indices of methods in the paper's order, each before its variants; unknown ones after, as they come."""
    bases = [name.split("@")[0] for name in names]

    def rank(index: int) -> tuple[int, int, bool, int]:
        base = bases[index]
        position = _ORDER.index(base) if base in _ORDER else len(_ORDER) + bases.index(base)
        return GROUPS.index(group(names[index])), position, "@" in names[index], index

    return sorted(range(len(names)), key=rank)


def accuracy_notes(axes: Collection[str] = ()) -> list[str]:
    """What the numbers are, and with axes what the tasks' initials mean."""
    initials = "; ".join(f"{short}: {display_name(task).lower()}" for task, short in TASK_INITIALS.items())
    note = "Accuracy in percent, averaged over questions; the interval of Overall is 95 %, over users."
    return [note, *([f"{initials}."] if axes else [])]


def users_notes(results: RunResults | ExperimentResults) -> list[str]:
    """That the questions are not about evaluation users, where they are not."""
    if results.get("users", "evaluation") == "evaluation":
        return []
    return ["The questions are about validation users, by whom settings are chosen, and about no evaluation user."]


def best_notes(rows: Sequence[ScoreRow], *, tested: bool) -> list[str]:
    """What the marks mean, or that nothing earned one; nothing where no tests were made."""
    if any(row.best for row in rows):
        return [f"* {BEST}"]
    return ["Nothing is marked: in no column is one method significantly better than every other."] if tested else []


def count_notes(rows: Sequence[ScoreRow]) -> list[str]:
    """How many questions there are, from the row with the most."""
    scored = [row.scores for row in rows if "overall" in row.scores]
    if not scored:
        return []
    largest = max(scored, key=lambda scores: scores["overall"]["n"])
    counts = [f"{subtask.upper()} {largest[subtask]['n']:,}" for subtask in SUBTASKS if subtask in largest]
    total = f"{largest['overall']['n']:,} in all."
    return [f"Questions: {', '.join(counts)}; {total}" if counts else f"Questions: {total}"]


def pretrain_scores(heading: str, rows: Sequence[ScoreRow], axes: Sequence[str] = ()) -> Table | None:
    """Recall@k and NDCG@k in percent and perplexity of pre-training; None where no row has such metrics."""
    rows = [row for row in rows if row.pretrain]
    found = {metric for row in rows for metric in row.pretrain if _is_ranking(metric)}
    metrics = sorted(found, key=lambda metric: (not metric.startswith("recall"), int(metric.split("@")[1])))
    metrics += ["perplexity"] if any("perplexity" in row.pretrain for row in rows) else []
    if not metrics:
        return None
    columns, body = leading_columns(heading, rows, axes)
    columns += map(_metric_column, metrics)
    for row, cells in zip(rows, body, strict=True):
        cells += [Cell(row.pretrain.get(metric)) for metric in metrics]
    records = [
        {heading.lower(): row.method, **_settings_record(row, axes), **{m: row.pretrain.get(m) for m in metrics}}
        for row in rows
    ]
    notes = [
        "Recall and NDCG in percent: the rank of each held-out user's last item among all items; held out are the "
        "validation users, or the evaluation users where nobody validates."
    ]
    return Table("pretrain", columns, sections_of(rows, body, titled=not axes), _filled(records), notes)


def leading_columns(
    heading: str, rows: Sequence[ScoreRow], axes: Sequence[str]
) -> tuple[list[Column], list[list[Cell]]]:
    """The columns that say what a row is, and their cells: the method unless all rows have the same, and the axes.

    A cell is empty where it and all cells before it equal those of the row above.
    """
    with_method = not axes or len({row.label for row in rows}) > 1
    columns = [*([Column(heading)] if with_method else []), *(Column(axis[:1].upper() + axis[1:]) for axis in axes)]
    body: list[list[Cell]] = []
    above: list[str] = []
    for row in rows:
        texts = [setting_name(row.axes[axis]) if axis in row.axes else "" for axis in axes]
        texts = [row.label, *texts] if with_method else texts
        same = 0
        while above and same < len(texts) - 1 and texts[same] == above[same]:
            same += 1
        body.append([Cell("" if index < same else text) for index, text in enumerate(texts)])
        above = texts
    return columns, body


def sections_of(rows: Sequence[ScoreRow], body: Sequence[list[Cell]], *, titled: bool) -> list[Section]:
    """Rows by group; a single group needs no title unless `titled`."""
    groups = [title for title in GROUPS if any(row.group == title for row in rows)]
    return [
        Section(
            title if titled or len(groups) > 1 else "",
            [cells for row, cells in zip(rows, body, strict=True) if row.group == title],
        )
        for title in groups
    ]


def bounds(interval: Sequence[float] | None) -> dict[str, float | None]:
    """An interval as two fields of a record."""
    low, high = interval or (None, None)
    return {"ci95_low": low, "ci95_high": high}


def levels_of(rows: Sequence[ScoreRow]) -> dict[str, list[str]]:
    """By sub-task, the scopes of its levels ("ip:natural") for which some row has a score."""
    levels: dict[str, list[str]] = {}
    for scope in sorted({scope for row in rows for scope in row.scores if ":" in scope}):
        levels.setdefault(scope.partition(":")[0], []).append(scope)
    return levels


def subtask_columns(
    levels: Mapping[str, list[str]] = MappingProxyType({}), marks: Mapping[str, str] = MappingProxyType({})
) -> tuple[list[Column], list[str]]:
    """Columns and scopes of Table 2; a sub-task's levels stand behind it."""
    columns, keys = [], []
    for task, subtasks in TASKS.items():
        span = display_name(task)
        for subtask in subtasks:
            mark = marks.get(subtask, "")
            columns.append(Column(subtask.upper() + mark, span=span))
            keys.append(subtask)
            for scope in levels.get(subtask, ()):
                level, mark = scope.partition(":")[2], marks.get(scope, "")
                columns.append(Column(level[:3] + "." + mark, alone=f"{subtask.upper()} {level}{mark}", span=span))
                keys.append(scope)
        columns.append(Column("Avg", alone=f"{span} avg", span=span))
        keys.append(task)
    return [*columns, Column("Overall")], [*keys, "overall"]


def level_notes(rows: Sequence[ScoreRow]) -> list[str]:
    """What the columns of levels are."""
    levels = sorted({scope.partition(":")[2] for row in rows for scope in row.scores if ":" in scope})
    if not levels:
        return []
    shown = ", ".join(f"{level[:3]}. {level}" for level in levels)
    return [f"Behind a sub-task stand the levels at which it is asked: {shown}."]


def _task_columns() -> tuple[list[Column], list[str]]:
    """Columns and scopes of Tables 3 to 6."""
    return [*map(Column, TASK_INITIALS.values()), Column("Overall")], [*TASK_INITIALS, "overall"]


def score_cell(row: ScoreRow, scope: str) -> Cell:
    """Accuracy, for Overall with its interval; where there is none, a failed row says so."""
    score = row.scores.get(scope)
    if score is None:
        return Cell("failed" if scope == "overall" and row.status == "failed" else None)
    interval = (score["ci95"][0], score["ci95"][1]) if scope == "overall" else None
    return Cell(score["accuracy"], interval, best=scope in row.best)


def _twin_cell(row: ScoreRow) -> Cell:
    """The lead over the untrained twin, marked where it is significant, whichever of the two leads."""
    lead = row.over_twin
    if lead is None:
        return Cell(None)
    return Cell(lead["difference"], (lead["ci95"][0], lead["ci95"][1]), best=lead["p_holm"] < 0.05)


def _extra_columns(
    rows: Sequence[ScoreRow], axes: Sequence[str]
) -> list[tuple[Column, Callable[[ScoreRow], float | None]]]:
    """Columns behind the scores with where their values are; with axes, only those that differ between rows."""

    def tokens(row: ScoreRow) -> float | None:
        return row.avg_tokens

    def model_size(row: ScoreRow) -> float | None:
        return row.sizes.get("model_size")

    def differ(value_of: Callable[[ScoreRow], float | None]) -> bool:
        return len({value for row in rows if (value := value_of(row)) is not None}) > 1

    extras: list[tuple[Column, Callable[[ScoreRow], float | None]]] = []
    if any(row.spread for row in rows):
        extras.append((Column("Seed sd"), lambda row: row.spread.get("overall")))
    if axes and differ(model_size):
        extras.append((Column("Model size", decimals=0, fixed=True), model_size))
    if not axes or differ(tokens):
        extras.append((Column("Tokens", decimals=0, fixed=True), tokens))
    return extras


def _add_paper(body: Sequence[list[Cell]], beside: Sequence[PaperCell | None]) -> list[Column]:
    """Append the paper's numbers to the rows of a table; returns their columns."""
    columns = [Column(short, alone=f"Paper {short}", span="Paper") for short in TASK_INITIALS.values()]
    columns.append(Column("Overall", alone="Paper overall", span="Paper"))
    with_tokens = any(cell is not None and cell.tokens for cell in beside)
    if with_tokens:
        columns.append(Column("Tokens", alone="Paper tokens", span="Paper", decimals=0, fixed=True))
    for cells, printed in zip(body, beside, strict=True):
        cells += [Cell(printed.scores.get(scope) if printed else None) for scope in (*TASK_INITIALS, "overall")]
        if with_tokens:
            cells.append(Cell(printed.tokens if printed else None))
    return columns


def _is_ranking(metric: str) -> bool:
    """Whether a pre-training metric is recall or NDCG at a cut-off, as in "recall@10"."""
    kind, _, cut = metric.partition("@")
    return kind in ("recall", "ndcg") and cut.isascii() and cut.isdecimal()


def _metric_column(metric: str) -> Column:
    if metric == "perplexity":
        return Column("Perplexity", decimals=1, fixed=True)
    kind, cut = metric.split("@")
    span = "Recall@" if kind == "recall" else "NDCG@"
    return Column(cut, alone=f"{span}{cut}", span=span)


def _record(row: ScoreRow, axes: Sequence[str]) -> dict[str, Any]:
    """A row's unrounded values."""
    accuracy = {scope: score["accuracy"] for scope, score in row.scores.items()}
    overall = row.scores.get("overall")
    record: dict[str, Any] = {"method": row.method, "group": row.group, **_settings_record(row, axes)}
    record |= {scope: accuracy.get(scope) for scope in subtask_columns()[1]} | accuracy
    record |= bounds(overall and overall["ci95"]) | {"n": overall and overall["n"]}
    if row.over_twin is not None:
        record |= {f"over_untrained{name}": value for name, value in _lead(row.over_twin).items()}
    record |= {f"sd_{scope}": value for scope, value in row.spread.items()}
    record |= {"avg_tokens": row.avg_tokens, **row.sizes, **row.pretrain}
    return record | {f"seconds_{stage}": row.seconds.get(stage) for stage in ("pretrain", "align", "evaluate")}


def _lead(lead: TwinDifference) -> dict[str, float]:
    low, high = lead["ci95"]
    return {
        "": lead["difference"],
        "_ci95_low": low,
        "_ci95_high": high,
        "_p": lead["p_value"],
        "_p_holm": lead["p_holm"],
    }


def _settings_record(row: ScoreRow, axes: Sequence[str]) -> dict[str, Any]:
    """What an experiment says of a row beyond its method; a run's rows have no seeds and need none of it."""
    if row.status == "done" and not row.seeds:
        return {}
    settings = {axis: row.axes.get(axis) for axis in axes}
    return {"label": row.label, **settings, "status": row.status, "seeds": " ".join(map(str, row.seeds))}


def _paper_record(cell: PaperCell | None) -> dict[str, Any]:
    record = {f"paper_{scope}": cell.scores.get(scope) if cell else None for scope in (*SCOPES[1:], "overall")}
    return record | {"paper_tokens": cell.tokens if cell else None}


def _filled(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records with the same fields in each."""
    fields = dict.fromkeys(key for record in records for key in record)
    return [{key: record.get(key) for key in fields} for record in records]
