"""A table as aligned text, Markdown, LaTeX (booktabs) or CSV."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from uqabench.report.model import BEST, Cell, Column, Table

_MISSING = "-"
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def terminal(table: Table) -> str:
    """Aligned plain text, `*` behind the best of a column; drops a decimal, then shortens names, to fit its width."""
    width = table.width
    for dropped in (0, 1):
        lines = _layout(table, dropped, name_width=None)
        if max(map(len, lines)) <= width:
            break
    else:
        longest = max(len(str(row[0].value)) for section in table.sections for row in section.rows)
        overflow = max(map(len, lines)) - width
        lines = _layout(table, 1, name_width=max(8, longest - overflow))
    notes = [line for note in table.notes for line in textwrap.wrap(note, width, subsequent_indent="  ")]
    return "\n".join([*lines, *notes]) + "\n"


def plain_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Aligned text of dictionaries, a column a key in order of appearance; what a row lacks stays empty."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [keys, *([_plain(row.get(key)) for key in keys] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(keys))]
    is_number = [all(isinstance(row.get(key, 0), (int, float)) for row in rows) for key in keys]
    aligned = (
        [cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(line, widths, is_number, strict=True)]
        for line in lines
    )
    return "\n".join("  ".join(line).rstrip() for line in aligned)


def markdown(table: Table) -> str:
    """A pipe table, the best of a column in bold; sections are rows in italics."""
    lines = [
        _pipes([column.title for column in table.columns]),
        _pipes([":--" if _is_text(table, index) else "--:" for index in range(len(table.columns))]),
    ]
    for section in table.sections:
        if section.title:
            lines.append(_pipes([f"*{section.title}*", *[""] * (len(table.columns) - 1)]))
        lines += [
            _pipes([_markdown_cell(*pair) for pair in zip(row, table.columns, strict=True)]) for row in section.rows
        ]
    notes = _bold_notes(table)
    return "\n".join([*lines, "", *(f"{note}  " for note in notes)]).rstrip() + "\n"


def latex(table: Table) -> str:
    """A `tabular` for `\\input`, in booktabs style, the best of a column in bold; the notes are comments."""
    columns = table.columns
    align = "".join("l" if _is_text(table, index) else "r" for index in range(len(columns)))
    lines = [r"% needs \usepackage{booktabs}", *(f"% {note}" for note in _bold_notes(table))]
    lines += [rf"\begin{{tabular}}{{{align}}}", r"\toprule", *_latex_spans(columns)]
    lines.append(_latex_row([escape_latex(column.heading) for column in columns]))
    for section in table.sections:
        lines.append(r"\midrule")
        if section.title:
            lines.append(
                _latex_row([rf"\multicolumn{{{len(columns)}}}{{l}}{{\textit{{{escape_latex(section.title)}}}}}"])
            )
        lines += [_latex_row([_latex_cell(*pair) for pair in zip(row, columns, strict=True)]) for row in section.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def comma_separated(table: Table) -> str:
    """CSV of the unrounded values under machine-readable names; an absent value is an empty field."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(table.records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.records)
    return buffer.getvalue()


FORMATS: dict[str, Callable[[Table], str]] = {
    "txt": terminal,
    "md": markdown,
    "tex": latex,
    "csv": comma_separated,
}


def escape_latex(text: str) -> str:
    """`text` with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(character, character) for character in text)


def _layout(table: Table, dropped: int, name_width: int | None) -> list[str]:
    """The lines of the text table with `dropped` fewer decimals and first-column texts cut to `name_width`."""
    columns = table.columns
    body = [
        [_terminal_cell(*pair, dropped) for pair in zip(row, columns, strict=True)]
        for s in table.sections
        for row in s.rows
    ]
    if name_width:
        body = [[_shorten(first, name_width), *rest] for first, *rest in body]
    starred = [any(row[index].endswith("*") for row in body) for index in range(len(columns))]
    body = [
        [cell + " " if starred[i] and not cell.endswith("*") else cell for i, cell in enumerate(row)] for row in body
    ]
    headings = [column.heading + " " * starred[index] for index, column in enumerate(columns)]
    widths = _widths(columns, [headings, *body])

    def line(cells: list[str]) -> str:
        text = ""
        for index, cell in enumerate(cells):
            aligned = cell.ljust(widths[index]) if _is_text(table, index) else cell.rjust(widths[index])
            text += (_gap(columns, index) if index else "") + aligned
        return text.rstrip()

    lines = [_span_line(columns, widths)] if any(column.span for column in columns) else []
    lines.append(line(headings))
    rule = "-" * max(len(line(row)) for row in [headings, *body])
    rows = iter(body)
    for section in table.sections:
        lines.append(f"{f'{section.title} ' if section.title else ''}".ljust(len(rule), "-"))
        lines += [line(next(rows)) for _ in section.rows]
    return [*lines, rule]


def _widths(columns: list[Column], rows: list[list[str]]) -> list[int]:
    """Each column's width; a span's first column takes what its heading needs beyond its columns."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for span, indices in _spans(columns):
        widths[indices[0]] += max(0, len(span) - _span_width(columns, widths, indices))
    return widths


def _spans(columns: list[Column]) -> list[tuple[str, list[int]]]:
    """Neighbouring columns by the span that they share; columns without one come together under ""."""
    grouped = groupby(range(len(columns)), key=lambda index: columns[index].span)
    return [(span, list(indices)) for span, indices in grouped]


def _span_width(columns: list[Column], widths: list[int], indices: list[int]) -> int:
    return sum(widths[index] for index in indices) + sum(len(_gap(columns, index)) for index in indices[1:])


def _gap(columns: list[Column], index: int) -> str:
    """Two blanks between spans, one within."""
    return " " if columns[index].span and columns[index].span == columns[index - 1].span else "  "


def _span_line(columns: list[Column], widths: list[int]) -> str:
    text = ""
    for span, indices in _spans(columns):
        text += (_gap(columns, indices[0]) if indices[0] else "") + span.center(_span_width(columns, widths, indices))
    return text.rstrip()


def _is_text(table: Table, index: int) -> bool:
    """Whether a column has texts only: "failed" among numbers stands as they do."""
    values = [row[index].value for section in table.sections for row in section.rows if row[index].value is not None]
    return any(isinstance(value, str) for value in values) and not any(
        isinstance(value, (int, float)) for value in values
    )


def _bold_notes(table: Table) -> list[str]:
    return [note.replace(f"* {BEST}", f"Bold: {BEST}") for note in table.notes]


def _number(value: float, column: Column, dropped: int = 0) -> str:
    decimals = column.decimals if column.fixed else max(1, column.decimals - dropped)
    return f"{value:{'+' if column.signed else ''},.{decimals}f}"


def _interval(cell: Cell, column: Column) -> str:
    low, high = (_number(bound, column) for bound in cell.interval or (0.0, 0.0))
    return f"[{low}, {high}]"


def _terminal_cell(cell: Cell, column: Column, dropped: int) -> str:
    if cell.value is None:
        return _MISSING
    if isinstance(cell.value, str):
        return cell.value
    text = _number(cell.value, column, dropped)
    if text.startswith("100."):  # one digit more than all others: it would widen the column
        text = text[:-1].rstrip(".")
    text += "*" if cell.best else ""
    if cell.interval is None:
        return text
    if column.signed:
        return f"{text} {_interval(cell, column)}"
    # An interval need not be symmetric: the longer arm does not promise more than it holds.
    arm = max(cell.value - cell.interval[0], cell.interval[1] - cell.value)
    return f"{text}{'' if cell.best else ' '} ±{_number(arm, column, dropped)}"


def _markdown_cell(cell: Cell, column: Column) -> str:
    if cell.value is None:
        return _MISSING
    if isinstance(cell.value, str):
        return cell.value.replace("|", r"\|")
    text = f"**{_number(cell.value, column)}**" if cell.best else _number(cell.value, column)
    return f"{text} {_interval(cell, column)}" if cell.interval else text


def _latex_cell(cell: Cell, column: Column) -> str:
    if cell.value is None:
        return "--"
    if isinstance(cell.value, str):
        return escape_latex(cell.value)
    # A minus sign needs math mode; a hyphen would be printed otherwise.
    text = _number(cell.value, column).replace("-", "$-$").replace("+", "$+$")
    text = rf"\textbf{{{text}}}" if cell.best else text
    return f"{text} {_interval(cell, column).replace('-', '$-$').replace('+', '$+$')}" if cell.interval else text


def _latex_row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_spans(columns: list[Column]) -> list[str]:
    """The row of headings that span columns, and the rules below them."""
    if not any(column.span for column in columns):
        return []
    cells, rules = [], []
    for span, indices in _spans(columns):
        if not span:
            cells += [""] * len(indices)
            continue
        cells.append(rf"\multicolumn{{{len(indices)}}}{{c}}{{{escape_latex(span)}}}")
        rules.append(rf"\cmidrule(lr){{{indices[0] + 1}-{indices[-1] + 1}}}")
    return [_latex_row(cells), " ".join(rules)]


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _pipes(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
