"""The published score of prediction files: the share of answers that start with the right one, by question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from uqabench.errors import InputError
from uqabench.questions.scoring import read_predictions, score
from uqabench.report.paper import paper_table
from uqabench.report.render import plain_table
from uqabench.vocabulary import SUBTASKS, TASKS, display_name


def official_scores(file: Path) -> dict[str, float]:
    """Accuracy in percent by sub-task, task and "overall" of a file in the published form; InputError otherwise."""
    rows = read_predictions(file)
    for number, row in enumerate(rows, start=1):
        if "question" not in row or "subtask" in row:
            raise InputError(
                f"{file}, prediction {number} is not in the published form (question, prediction, answer): score it "
                "without --official."
            )
    entry = score(rows, rule="starts-with", seed=0)
    cells = {**entry["subtasks"], **entry["tasks"], "overall": entry["overall"]}
    return {name: cell["accuracy"] for name, cell in cells.items()}


def official_table(files: Sequence[Path], compare: str | None = None) -> str:
    """A table of the files' published scores, in the order of the paper's Table 2; with "paper" its rows below."""
    columns = [name for task, subtasks in TASKS.items() for name in (*subtasks, task)] + ["overall"]
    found = {file.stem: official_scores(file) for file in files}
    if compare == "paper":
        found |= {f"{display_name(cell.method)} (paper)": cell.scores for cell in paper_table("table2").cells}
    rows = []
    for name, scores in found.items():
        shown = {_heading(column): f"{scores[column]:.2f}" if column in scores else "-" for column in columns}
        rows.append({"method": name, **shown})
    return plain_table(rows)


def _heading(column: str) -> str:
    return display_name(column) if column in SUBTASKS else column.replace("_", " ")
