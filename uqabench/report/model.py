"""What a table is, whatever format it is rendered in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TERMINAL_WIDTH = 110
BEST = (
    "significantly better than every other method (paired test over users, Holm, p < 0.05), controls and baselines "
    "aside."
)
"""What marks a cell: "* " in a terminal, "Bold: " elsewhere stands before it in a table's notes."""


@dataclass(frozen=True)
class Column:
    """One column. `heading` stands below `span`, which neighbours share; `alone` is the heading where none can span.

    `decimals` is for numbers; `fixed` keeps them where a narrow terminal makes other columns drop one.
    """

    heading: str
    alone: str = ""
    span: str = ""
    decimals: int = 2
    fixed: bool = False
    signed: bool = False

    @property
    def title(self) -> str:
        return self.alone or self.heading


@dataclass(frozen=True)
class Cell:
    """"""

    value: float | str | None
    interval: tuple[float, float] | None = None
    best: bool = False


@dataclass(frozen=True)
class Section:
    """Rows under one heading (no heading if the title is empty)."""

    title: str
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Table:
    """A table in a form that every format renders; `records` are its unrounded values for CSV.

    `width` is what it may take in a terminal, in characters.
    """

    name: str
    columns: list[Column]
    sections: list[Section]
    records: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    width: int = TERMINAL_WIDTH

    def __str__(self) -> str:
        """The table as a terminal shows it."""
        from uqabench.report.render import terminal  # render is built upon this module

        return terminal(self)
