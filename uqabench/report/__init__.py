"""What a run found, as tables and figures. Reads results.json only: no model, no data, no torch."""

from uqabench.report.plots import plot_accuracy, plot_tokens
from uqabench.report.render import FORMATS
from uqabench.report.results import Results, load_results, validate_results
from uqabench.report.tables import all_tables, comparison_table, main_table, pretrain_table, write_tables

__all__ = [
    "FORMATS",
    "Results",
    "all_tables",
    "comparison_table",
    "load_results",
    "main_table",
    "plot_accuracy",
    "plot_tokens",
    "pretrain_table",
    "validate_results",
    "write_tables",
]
