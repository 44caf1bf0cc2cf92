"""One run: the methods of its settings through all stages, and its results file and tables."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch

from uqabench.artifact import versions
from uqabench.errors import InputError, RunError, UQABenchError
from uqabench.experiments.results import answers, best, comparisons, flags, method_entry, probe_scores
from uqabench.experiments.trackers import check_tracker, track
from uqabench.experiments.twins import Scored, twin_differences
from uqabench.files import atomic_folder, sweep, write_json
from uqabench.plan.dry_run import survey
from uqabench.plan.executor import Outcome, execute
from uqabench.plan.folder import check_is_run, claimed
from uqabench.plan.methods import Method, parse_methods
from uqabench.plan.nodes import Nodes, Tools
from uqabench.plan.opened import Opened
from uqabench.plan.plan import Plan, Planned, plan, problem_of
from uqabench.questions.scoring import scoring_rule
from uqabench.report.page import FILE_NAME, write_page
from uqabench.report.results import load_results
from uqabench.report.write import write_tables
from uqabench.settings import RunConfig
from uqabench.settings.reader import to_dict
from uqabench.stages.distributed import processes
from uqabench.stages.pretrain import popularity_metrics
from uqabench.vocabulary import BASELINES

log = logging.getLogger("uqabench")


def run(
    folder: Path | str,
    config: RunConfig,
    *,
    until: str = "evaluate",
    progress: bool = True,
    compare: str | None = None,
    wait: bool = False,
    strict: bool = False,
    page: bool = True,
) -> dict[str, Any] | None:
    """Run the stages up to `until` ("pretrain", "align", "evaluate") in `folder`; returns (and writes) the results.

    Finished stages are reused and killed ones resumed. Methods that fail leave the others running: they are named in
    the results under "failed", but where only baselines are left the first error is raised. None where the run stops
    before evaluation, and from all but the first of several processes. compare: "paper" puts the paper's numbers beside
    those of the tables. wait: for another process that works in the folder. strict: stop at a failure. page: write
    report.html, the page of the results.
    """
    folder = Path(folder)
    check_device(config)
    check_tracker(config.tracker)
    problems = problems_of(config)
    with claimed(folder, wait=wait), Opened() as opened:
        tools = Tools(opened, progress and processes().is_first)
        methods = [method for method in parse_methods(config) if method.name not in problems]
        planned = plan(config, tools, methods=methods)
        outcome = execute(
            [*planned.targets(until), *(planned.probes() if until == "evaluate" else [])],
            folder,
            essential=planned.essential(until),
            early=planned.pretrained(),
            progress=progress,
            strict=strict,
        )
        if processes().is_first:
            track(config.tracker, folder, outcome.made.values())
        failed = {**problems, **failures(planned.methods, outcome, until)}
        if failed and _only_baselines_are_left(parse_methods(config), failed):
            raise next(iter(failed.values()))
        if until != "evaluate":
            _refuse_failures(failed)
        if until != "evaluate" or not processes().is_first:
            return None
        results = _write_results(folder, planned, outcome, failed, tools, compare)
        sweep(folder / FILE_NAME)
        (folder / FILE_NAME).unlink(missing_ok=True)  # one of earlier results would speak of others
        if page:
            write_page([folder], folder / FILE_NAME)
        return results


def survey_run(folder: Path, config: RunConfig, until: str = "evaluate") -> list[dict[str, Any]]:
    """What `run` would do: a row a node (`plan.dry_run.survey`)."""
    check_is_run(folder)
    planned = plan(config, Tools(Opened(), False))
    probes = planned.probes() if until == "evaluate" else []
    return survey([*planned.essential(until), *planned.pretrained(), *planned.targets(until), *probes], folder)


def train_demo_model(folder: Path | str, config: RunConfig, *, progress: bool = True) -> Path:
    """Train the small language model of `config` in the run folder `folder`, with its data and questions alone;
    returns the model's folder."""
    folder = Path(folder)
    with claimed(folder), Opened() as opened:
        node = Nodes(Tools(opened, progress)).language_model(config)
        return execute([node], folder, progress=progress).of(node).path / "model"


def check_device(config: RunConfig) -> None:
    """InputError where the settings ask for a GPU that torch does not see."""
    if config.device != "cpu" and not torch.cuda.is_available():
        raise InputError(f"device is '{config.device}', but torch sees no GPU here: use cpu (`uqabench doctor`).")


def problems_of(config: RunConfig) -> dict[str, UQABenchError]:
    """Methods that cannot work, and why; said before anything is built. InputError when only baselines are left."""
    methods = parse_methods(config)
    problems = {method.name: problem for method in methods if (problem := problem_of(method)) is not None}
    if problems and _only_baselines_are_left(methods, problems):
        raise next(iter(problems.values()))
    for name, problem in problems.items():
        log.warning("%s is left out: %s", name, problem)
    return problems


def _only_baselines_are_left(methods: list[Method], failed: dict[str, UQABenchError]) -> bool:
    return all(method.name in failed or method.base in BASELINES for method in methods)


def failures(methods: list[Planned], outcome: Outcome, until: str) -> dict[str, UQABenchError]:
    """Methods whose last node was not built, and why."""
    failed: dict[str, UQABenchError] = {}
    for planned in methods:
        node = planned.target(until)
        if node is not None and node.key not in outcome.made:
            failed[planned.method.name] = outcome.cause(node)
    return failed


def _refuse_failures(failed: dict[str, UQABenchError]) -> None:
    if failed:
        reasons = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise RunError(f"{len(failed)} methods failed ({reasons}); the same command goes on from there.")


def _write_results(
    folder: Path,
    planned: Plan,
    outcome: Outcome,
    failed: dict[str, UQABenchError],
    tools: Tools,
    compare: str | None,
) -> dict[str, Any]:
    finished = [each for each in planned.methods if each.method.name not in failed]
    store = tools.opened.store(outcome.of(planned.data))
    evaluated = {each.method.name: outcome.of(each.evaluate) for each in finished}
    pretrained = {each.method.name: outcome.of(each.pretrain) for each in finished if each.pretrain is not None}
    methods = {}
    for each in finished:
        stages = {"pretrain": each.pretrain, "align": each.align, "evaluate": each.evaluate}
        seconds = {stage: outcome.of(node).seconds if node is not None else 0.0 for stage, node in stages.items()}
        entry = method_entry(evaluated[each.method.name].json("metrics.json"), seconds)
        methods[each.method.name] = {**entry, "predictions": _predictions(folder, evaluated[each.method.name].path)}
    table = {name: artifact.json("metrics.json") for name, artifact in pretrained.items()}
    if table:
        table["popularity"] = popularity_metrics(store)
    config = planned.config
    folders = {name: artifact.path for name, artifact in evaluated.items()}
    rule, rows = scoring_rule(config.evaluate.generate), answers(folders)
    results = {
        "schema": 1,
        "dataset": config.data.source,
        "users": config.questions.users,
        "llm": config.llm.name,
        "seed": config.seed,
        "split_seed": store.manifest["config"]["split_seed"],
        "versions": versions(),
        "folders": {
            "data": os.path.relpath(store.path, folder),
            "questions": os.path.relpath(outcome.of(planned.questions).path, folder),
        },
        "mix": outcome.of(planned.questions).json("metrics.json")[config.questions.users]["counts"],
        "methods": methods,
        "pretrain": table,
        "best": best(rows, rule),
        "flags": flags(rows, rule),
        "comparisons": comparisons(rows, [each.method for each in finished], rule),
        "twins": twin_differences(
            [Scored({0: each.method}, {0: folders[each.method.name]}) for each in finished], rule
        ),
    }
    probes = probes_of(finished, outcome)
    if probes:
        results["probes"] = probes
    if failed:
        results["failed"] = {name: str(error) for name, error in failed.items()}
    for name in ("results.json", "config.json", "tables"):
        sweep(folder / name)
    write_json(folder / "results.json", results)
    write_json(folder / "config.json", to_dict(config))
    with atomic_folder(folder / "tables") as tables:
        write_tables(load_results(folder / "results.json"), tables, compare, folder, to_dict(config))
    return results


def probes_of(planned: list[Planned], outcome: Outcome) -> dict[str, dict[str, Any]]:
    """What probes read of each method, by place; probes that failed are left out."""
    found = {
        each.method.name: probe_scores(
            {place: outcome.made[node.key] for place, node in each.probes.items() if node.key in outcome.made}
        )
        for each in planned
    }
    return {name: places for name, places in found.items() if places}


def _predictions(folder: Path, evaluated: Path) -> str:
    return os.path.relpath(evaluated / "predictions.jsonl", folder)
