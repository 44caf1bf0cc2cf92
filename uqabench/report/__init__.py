"""What a run or an experiment found, as tables, figures and a page. Reads what the stages left: no model, no torch."""

from uqabench.report.experiment import experiment_table
from uqabench.report.probes import probe_table
from uqabench.report.render import FORMATS
from uqabench.report.results import load_experiment, load_results
from uqabench.report.rows import ScoreRow, experiment_rows, run_rows
from uqabench.report.tables import comparison_table, main_table, pretrain_table
from uqabench.report.write import write_experiment, write_tables

__all__ = [
    "FORMATS",
    "ScoreRow",
    "comparison_table",
    "experiment_rows",
    "experiment_table",
    "load_experiment",
    "load_results",
    "main_table",
    "pretrain_table",
    "probe_table",
    "run_rows",
    "write_experiment",
    "write_tables",
]
