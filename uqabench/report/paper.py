"""The paper's own numbers (`assets/paper.yaml`), and which of them belong beside which of our rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from uqabench.report.rows import ScoreRow


@dataclass(frozen=True)
class PaperCell:
    """One line of a table of the paper: accuracy in percent by scope.

    `settings` names the values of its axes, each with all its spellings. `tokens` is the mean length of a prompt and
    `model_size` the parameters of the encoder's blocks, where the paper states them.
    """

    method: str
    settings: tuple[frozenset[str], ...]
    scores: dict[str, float]
    tokens: float | None = None
    model_size: int | None = None


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper. `ordered` tables vary one quantity that presets scale, so their lines have a rank."""

    name: str
    cells: list[PaperCell]
    ordered: bool

    def beside(self, rows: Sequence[ScoreRow]) -> tuple[list[PaperCell | None], bool]:
        """The paper's cell for each row (None where it has none), and whether they were paired by rank.

        A row and a cell belong together when their methods are equal and the row's axes have the cell's values (in any
        spelling) or its encoder the cell's size. Where that holds for no row of an ordered table, and as many rows of
        its method vary one axis, the i-th row belongs to the i-th cell.
        """
        found = [next((cell for cell in self.cells if _agree(cell, row)), None) for row in rows]
        ours = [index for index, row in enumerate(rows) if row.axes and row.method == self.cells[0].method]
        if not self.ordered or any(found) or len(ours) != len(self.cells) or any(len(rows[i].axes) != 1 for i in ours):
            return found, False
        for index, cell in zip(ours, self.cells, strict=True):
            found[index] = cell
        return found, True


@cache
def paper_table(name: str) -> PaperTable:
    """A table of the paper by its key ("table2" to "table7")."""
    tables = _read()["tables"]
    table = tables[name]
    cells = [
        PaperCell(
            cell["method"],
            tuple(_spellings(setting, cell.get("spelt", ())) for setting in cell.get("settings", ())),
            dict(zip(table["scopes"], cell["scores"], strict=True)),
            cell.get("tokens"),
            cell.get("model_size"),
        )
        for cell in table["cells"]
    ]
    return PaperTable(name, cells, table.get("ordered", False))


def paper_tables() -> tuple[str, ...]:
    """Keys of the paper's tables."""
    return tuple(_read()["tables"])


def paper_mix() -> dict[str, int]:
    """How many of the paper's 7,192 questions each sub-task has, recovered from its Table 2."""
    return dict(_read()["mix"])


@cache
def _read() -> dict[str, Any]:
    return yaml.safe_load(resources.files("uqabench").joinpath("assets/paper.yaml").read_text(encoding="utf-8"))


def _spellings(setting: Any, others: Sequence[str]) -> frozenset[str]:
    return frozenset(map(_normal, (setting, *_read()["aliases"].get(setting, ()), *others)))


def _normal(value: Any) -> str:
    """A value's words and numbers: "Mean-pooling" is "mean pooling", and "(4, 256, 4)" is "4x256x4"."""
    text = re.sub(r"(?<=\d)\s*[×x,]\s*(?=\d)", " ", str(value).casefold())
    return " ".join(re.findall(r"[a-z0-9.+]+", text))


def _agree(cell: PaperCell, row: ScoreRow) -> bool:
    if cell.method != row.method:
        return False
    if cell.model_size is not None and row.sizes.get("model_size") == cell.model_size:
        return True
    values = [_normal(value) for value in row.axes.values()]
    return len(values) == len(cell.settings) and all(any(v in names for v in values) for names in cell.settings)
