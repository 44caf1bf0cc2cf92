"""Reading the results of a run or an experiment, the contract between them and everything that reports them."""

from __future__ import annotations

from pathlib import Path

from uqabench.files import read_json
from uqabench.settings.results import ExperimentResults, RunResults, check_experiment_results, check_run_results


def load_results(path: Path | str) -> RunResults:
    """Read and check the results of a run: a file, or the results.json of a run's folder."""
    path = _file(path)
    return check_run_results(read_json(path), str(path))


def load_experiment(path: Path | str) -> ExperimentResults:
    """Read and check the results of an experiment: a file, or the results.json of an experiment's folder."""
    path = _file(path)
    return check_experiment_results(read_json(path), str(path))


def _file(path: Path | str) -> Path:
    path = Path(path)
    return path / "results.json" if path.is_dir() else path
