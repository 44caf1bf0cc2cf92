"""Writing what a run or an experiment found: every table in every format, and the figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from uqabench.files import write_bytes
from uqabench.report.diagnostics import diagnostic_tables
from uqabench.report.experiment import experiment_table
from uqabench.report.found import found_experiment, found_run, has_answers
from uqabench.report.model import Table
from uqabench.report.plots import plot_accuracy, plot_scaling, plot_tokens
from uqabench.report.probes import experiment_probe_table, probe_table
from uqabench.report.render import FORMATS
from uqabench.report.rows import ScoreRow, experiment_rows, run_rows
from uqabench.report.scaling import fit_scaling, paper_scaling
from uqabench.report.scores import paper_order, pretrain_scores
from uqabench.report.tables import comparison_table, main_table, pretrain_table
from uqabench.settings.results import ExperimentResults, RunResults


def write_tables(
    results: RunResults,
    folder: Path | str,
    compare: str | None = None,
    run_folder: Path | str | None = None,
    settings: dict[str, Any] | None = None,
) -> list[Path]:
    """Write a run's tables as NAME.txt, .md, .tex and .csv and, where matplotlib is installed, its figures as .png.

    compare: "paper" puts the paper's numbers beside. run_folder: where the answers lie; with it, there are tables of
    what stands behind the scores (`diagnostics`), and the run's settings say how answers are scored. Returns the
    paths.
    """
    rows = run_rows(results)
    rows = [rows[index] for index in paper_order([row.method for row in rows])]
    tables = [main_table(results, compare), pretrain_table(results), comparison_table(results.get("comparisons", []))]
    tables.append(probe_table(results))
    if run_folder is not None:
        tables += diagnostic_tables(found_run(results, Path(run_folder), settings or {}))
    return [*_write_tables(tables, Path(folder)), *_write_figures(rows, Path(folder))]


def write_probes(results: RunResults, folder: Path | str) -> list[Path]:
    """Write the table of a run's probes as `write_tables` does."""
    return _write_tables([probe_table(results)], Path(folder))


def write_experiment(
    results: ExperimentResults, folder: Path | str, compare: str | None = None, run_folder: Path | str | None = None
) -> list[Path]:
    """Write an experiment's tables and figures as `write_tables` does; the first is NAME.txt, of the experiment's name.

    run_folder: where the cells' prediction files lie. With it, intervals pool the seeds, the significantly best rows
    are marked, and the interval of a power law comes from users drawn with replacement.
    """
    rows = experiment_rows(results, run_folder)
    axes = list(results["axes"])
    tables = [
        experiment_table(results, compare, rows),
        pretrain_scores("Method", rows, axes),
        comparison_table(results.get("comparisons", [])),
        experiment_probe_table(results, rows),
    ]
    if run_folder is not None and has_answers(results, Path(run_folder)):
        tables += diagnostic_tables(found_experiment(results, rows, Path(run_folder), {}))
    folder = Path(folder)
    paths = [*_write_tables(tables, folder), *_write_figures(rows, folder)]
    laws = fit_scaling(rows)
    if laws and _can_draw():
        if results.get("paper") == "table5":
            laws.append(paper_scaling())
        paths.append(plot_scaling(laws, folder / "scaling.png"))
    return paths


def _write_tables(tables: Iterable[Table | None], folder: Path) -> list[Path]:
    paths = []
    for table in tables:
        if table is None:
            continue
        for suffix, render in FORMATS.items():
            paths.append(folder / f"{table.name}.{suffix}")
            write_bytes(paths[-1], render(table).encode())
    return paths


def _write_figures(rows: Sequence[ScoreRow], folder: Path) -> list[Path]:
    scored = [row for row in rows if "overall" in row.scores]
    if not scored or not _can_draw():
        return []
    paths = [plot_accuracy(scored, folder / "accuracy.png")]
    with_tokens = [row for row in scored if row.group != "Baselines" and row.avg_tokens]
    if len({row.avg_tokens for row in with_tokens}) > 1:
        paths.append(plot_tokens(with_tokens, folder / "tokens.png"))
    return paths


def _can_draw() -> bool:
    return find_spec("matplotlib") is not None
