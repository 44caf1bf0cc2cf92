"""The table of an experiment: scores by method and by the axes' values, in the shape of the paper's Tables 2 to 6."""

from __future__ import annotations

from collections.abc import Sequence

from uqabench.report.flags import flag_notes, flagged
from uqabench.report.model import Table
from uqabench.report.paper import paper_tables
from uqabench.report.rows import ScoreRow, comparable, experiment_rows, rivals
from uqabench.report.scaling import fit_scaling
from uqabench.report.scores import (
    accuracy_notes,
    best_notes,
    check_compare,
    count_notes,
    level_notes,
    paper_order,
    score_table,
    users_notes,
)
from uqabench.report.tables import power_notes
from uqabench.settings.results import ExperimentResults

LONGEST_LIST = 6  # failures named one by one in the notes


def experiment_table(
    results: ExperimentResults, compare: str | None = None, rows: Sequence[ScoreRow] | None = None
) -> Table:
    """Scores of an experiment, a row a method and combination of the axes' values; without axes as a run's table.

    compare: "paper" puts the paper's numbers beside. rows: what `experiment_rows` made of these results, where
    prediction files were at hand.
    """
    check_compare(compare)
    rows = experiment_rows(results) if rows is None else rows
    if not results["axes"]:
        rows = [rows[index] for index in paper_order([row.method for row in rows])]
    paper = results.get("paper") if compare else None
    notes = [_heading(results), *users_notes(results), *accuracy_notes(results["axes"]), *_seed_notes(rows)]
    flags = [] if results["axes"] else results.get("flags", [])
    levels = [] if results["axes"] else level_notes(rows)
    notes += [*best_notes(rows, tested=comparable(rivals(rows))), *power_notes(results.get("comparisons", []))]
    notes += [*levels, *flag_notes(flags)]
    notes += [*count_notes(rows), *_gaps(rows)]
    notes += [law.sentence() for law in fit_scaling(rows)]
    if compare and paper not in paper_tables():
        notes.append("The paper has no table of this experiment.")
        paper = None
    return score_table(results["name"], rows, notes, axes=list(results["axes"]), paper=paper, marks=flagged(flags))


def _heading(results: ExperimentResults) -> str:
    facts = [f"data set {results['dataset']}", f"language model {results['llm']}"]
    facts += [f"preset {results['preset']}"] if results.get("preset") else []
    return f"{results.get('title') or results['name']}: {', '.join(facts)}."


def _seed_notes(rows: Sequence[ScoreRow]) -> list[str]:
    seeds = sorted({seed for row in rows for seed in row.seeds})
    if not any(row.spread for row in rows):
        return [f"One seed ({seeds[0]}): how much another seed would differ is not in the interval."] if seeds else []
    interval = (
        "the interval takes the seeds' answers together, and a user drawn is drawn in all of them"
        if any(row.answers for row in rows)
        else "the ends of the interval are the means of the seeds' ends, so it does not shrink with more seeds"
    )
    return [
        f"Means over the seeds {', '.join(map(str, seeds))}; Seed sd is the standard deviation of Overall over them; "
        f"{interval}."
    ]


def _gaps(rows: Sequence[ScoreRow]) -> list[str]:
    """Which rows failed or were not run, and why."""
    failed = [f"{row.name} ({failure})" for row in rows for failure in row.failures]
    missing = [row.name for row in rows if row.status == "missing"]
    return [f"{title}: {_listed(names)}." for title, names in (("Failed", failed), ("Not run", missing)) if names]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - LONGEST_LIST
    return "; ".join([*names[:LONGEST_LIST], *([f"and {more} more"] if more > 0 else [])])
