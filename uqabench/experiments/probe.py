"""Probes of a finished run's embeddings, added to its results and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from uqabench.errors import InputError, RunError
from uqabench.experiments.run import check_device, probes_of
from uqabench.files import read_json, write_json
from uqabench.plan.executor import execute
from uqabench.plan.folder import claimed
from uqabench.plan.methods import Method, parse_methods
from uqabench.plan.nodes import Tools
from uqabench.plan.opened import Opened
from uqabench.plan.plan import plan
from uqabench.report.results import load_results
from uqabench.report.write import write_probes
from uqabench.settings.reader import from_dict
from uqabench.settings.results import RunResults
from uqabench.settings.run import RunConfig
from uqabench.vocabulary import GIVEN_QUESTIONS


def probe_run(
    folder: Path | str,
    methods: Sequence[str] | None = None,
    *,
    progress: bool = True,
    wait: bool = False,
    strict: bool = False,
) -> RunResults:
    """Probe embedding methods of the finished run in `folder` (default: all); returns its results with the probes.

    What the run has built is reused; results.json and the tables `probe.*` are written anew. InputError for a folder
    without a finished run and for methods that are none of its embedding methods.
    """
    folder = Path(folder)
    if not (folder / "results.json").is_file():
        raise InputError(f"{folder} holds no finished run: name the folder of one, as in runs/demo.")
    config = replace(from_dict(RunConfig, read_json(folder / "config.json"), "config.json"), probe=True)
    if config.questions.evaluation.version == GIVEN_QUESTIONS:
        raise InputError("The options of questions that came with the data are words, which a probe cannot compare.")
    check_device(config)
    chosen = _chosen(config, load_results(folder), methods, folder)
    with claimed(folder, wait=wait), Opened() as opened:
        planned = plan(config, Tools(opened, progress), methods=chosen)
        outcome = execute(planned.probes(), folder, essential=planned.essential(), progress=progress, strict=strict)
        probes = probes_of(planned.methods, outcome)
        if not probes:
            raise RunError(f"No probe was made: {next(iter(outcome.failed.values()))}")
        results = read_json(folder / "results.json")
        known = {**results.get("probes", {}), **probes}
        results["probes"] = {name: known[name] for name in results["methods"] if name in known}
        write_json(folder / "results.json", results)
        written = load_results(folder)
        write_probes(written, folder / "tables")
        return written


def _chosen(config: RunConfig, results: RunResults, names: Sequence[str] | None, folder: Path) -> list[Method]:
    embedding = {
        method.name: method
        for method in parse_methods(config)
        if method.has_vectors and method.name in results["methods"]
    }
    for name in names or ():
        if name not in embedding:
            known = f"choose among {', '.join(embedding)}" if embedding else "it has none"
            raise InputError(f"'{name}' is no embedding method that the run in {folder} has finished: {known}.")
    if not embedding:
        raise InputError(f"The run in {folder} has no embedding method, so there is nothing to probe.")
    return [embedding[name] for name in names or embedding]
