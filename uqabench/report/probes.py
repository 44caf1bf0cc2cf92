"""The table of probes: for each embedding method, what can be read at each step from encoder to answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from statistics import fmean

from uqabench.report.model import TERMINAL_WIDTH, Cell, Column, Section, Table
from uqabench.report.rows import ScoreRow, run_rows
from uqabench.report.scores import WIDE, level_notes, levels_of, score_cell, subtask_columns
from uqabench.settings.results import ExperimentResults, MethodScores, RunResults, Score
from uqabench.vocabulary import PROBED

ANSWERED = "language model"
"""The last row of each method: what the language model answers."""

Rows = list[tuple[str, list[ScoreRow]]]


def probe_table(results: RunResults) -> Table | None:
    """What probes read from the embedding methods of a run, and what the language model answers; None without any."""
    rows = {row.method: row for row in run_rows(results)}
    found: Rows = [
        (rows[name].label, _of_method(rows[name], [places]))
        for name, places in results.get("probes", {}).items()
        if name in rows
    ]
    return _table(found) if found else None


def experiment_probe_table(results: ExperimentResults, rows: Iterable[ScoreRow]) -> Table | None:
    """The same for the rows of an experiment, as means over their seeds; None without any probe."""
    found: Rows = []
    for row in rows:
        cells = [
            cell["probes"]
            for cell in results["cells"]
            if (cell["method"], cell["label"], cell["axes"]) == (row.method, row.label, row.axes) and "probes" in cell
        ]
        if cells:
            found.append((row.name, _of_method(row, cells)))
    return _table(found) if found else None


def _of_method(answered: ScoreRow, seeds: list[Mapping[str, MethodScores]]) -> list[ScoreRow]:
    """Rows of one method: its probes, averaged over seeds, then its answers."""
    rows = []
    for place in PROBED:
        each = [_scopes(places[place]) for places in seeds if place in places]
        if each:
            scores = {scope: _mean([scores[scope] for scores in each if scope in scores]) for scope in each[0]}
            rows.append(ScoreRow(answered.method, place, scores=scores))
    return [*rows, replace(answered, label=ANSWERED, best=frozenset())]


def _scopes(scores: MethodScores) -> dict[str, Score]:
    parts = (scores.get("tasks", {}), scores.get("subtasks", {}), scores.get("levels", {}))
    return {"overall": scores["overall"], **{scope: score for part in parts for scope, score in part.items()}}


def _mean(scores: list[Score]) -> Score:
    ends = [fmean(ends) for ends in zip(*(score["ci95"] for score in scores), strict=True)]
    return {"accuracy": fmean(s["accuracy"] for s in scores), "ci95": ends, "n": max(s["n"] for s in scores)}


def _table(found: Rows) -> Table:
    every = [row for _, rows in found for row in rows]
    columns, keys = subtask_columns(levels_of(every))
    sections = [
        Section(title, [[Cell(row.label), *(score_cell(row, key) for key in keys)] for row in rows])
        for title, rows in found
    ]
    records = [
        {"method": row.method, "row": title, "read_from": row.label}
        | {key: row.scores[key]["accuracy"] if key in row.scores else None for key in keys}
        for title, rows in found
        for row in rows
    ]
    notes = [
        "Accuracy in percent of a linear probe, a lower bound of what is there: of the encoder's states (means of the "
        "whole history and of the last 64, 32, … items), of what the integration pools, and of the soft tokens; last, "
        "what the language model answers.",
        *level_notes(every),
    ]
    width = WIDE if levels_of(every) else TERMINAL_WIDTH
    return Table("probe", [Column("Read from"), *columns], sections, records, notes, width)
