"""Run experiments: their cells' nodes, each once however many experiments share it, and one results file each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uqabench.artifact import Artifact, versions
from uqabench.errors import InputError, UQABenchError
from uqabench.experiments.costs import cost_node, write_costs
from uqabench.experiments.results import answers, comparisons, flags
from uqabench.experiments.run import check_device, probes_of
from uqabench.experiments.spec import Cell, Experiment, axes_of, cells
from uqabench.experiments.trackers import check_tracker, track
from uqabench.experiments.twins import Scored, twin_differences
from uqabench.files import atomic_folder, hash_json, sweep, write_json
from uqabench.integrations import find_integration
from uqabench.plan.dry_run import survey
from uqabench.plan.executor import Outcome, execute
from uqabench.plan.folder import check_is_run, claimed
from uqabench.plan.methods import Method
from uqabench.plan.node import Node
from uqabench.plan.nodes import Tools
from uqabench.plan.opened import Opened
from uqabench.plan.plan import Plan, Planned, plan, problem_of
from uqabench.questions.scoring import scoring_rule
from uqabench.report.page import FILE_NAME, write_page
from uqabench.report.results import load_experiment
from uqabench.report.write import write_experiment
from uqabench.settings import ENCODER_PRESETS, RunConfig, encoder_config, patched
from uqabench.settings.reader import to_dict
from uqabench.stages.distributed import processes
from uqabench.vocabulary import SUBTASKS, TASKS, display_name


@dataclass(frozen=True)
class PlannedCell:
    """A cell and its nodes, or why it has none; `costs` where those are measured."""

    cell: Cell
    nodes: Planned | None
    problem: UQABenchError | None = None
    costs: Node | None = None


@dataclass(frozen=True)
class PlannedExperiment:
    """An experiment's cells, in the order of its table, and the plan of each seed."""

    experiment: Experiment
    config: RunConfig
    plans: dict[int, Plan]
    cells: list[PlannedCell]

    def essential(self) -> list[Node]:
        """What every cell builds on."""
        return [node for of_seed in self.plans.values() for node in of_seed.essential()]

    def targets(self) -> list[Node]:
        """The last nodes of every cell; what is timed comes when all else is done."""
        evaluated = [planned.nodes.evaluate for planned in self.cells if planned.nodes is not None]
        return evaluated + [planned.costs for planned in self.cells if planned.costs is not None]

    def probes(self) -> list[Node]:
        """What is read of the cells' embeddings beside their answers."""
        return [node for of_seed in self.plans.values() for node in of_seed.probes()]


def plan_experiment(
    experiment: Experiment, config: RunConfig, tools: Tools, seeds: tuple[int, ...] = ()
) -> PlannedExperiment:
    """The nodes of an experiment. Cells whose encoder refuses its settings are kept with the reason."""
    if experiment.choice and config.questions.users != "validation":
        raise InputError(
            f"The experiment {experiment.name} chooses settings, and evaluation users must not be asked for that: add "
            "--validation."
        )
    found = cells(experiment, config, seeds)
    planned: dict[int, PlannedCell] = {}
    plans: dict[int, Plan] = {}
    for seed in dict.fromkeys(cell.seed for cell in found):
        mine = [index for index, cell in enumerate(found) if cell.seed == seed]
        problems = {index: problem_of(found[index].method) for index in mine}
        usable = [index for index in mine if problems[index] is None]
        seeded = patched(config, {"seed": config.seed + seed})
        plans[seed] = plan(seeded, tools, methods=[found[index].method for index in usable])
        planned |= {
            index: PlannedCell(found[index], nodes, costs=cost_node(experiment, nodes, tools))
            for index, nodes in zip(usable, plans[seed].methods, strict=True)
        }
        planned |= {index: PlannedCell(found[index], None, problems[index]) for index in mine if problems[index]}
    return PlannedExperiment(experiment, config, plans, [planned[index] for index in range(len(found))])


def run_experiments(
    folder: Path,
    experiments: list[Experiment],
    config: RunConfig,
    preset: str,
    *,
    seeds: tuple[int, ...] = (),
    compare: str | None = None,
    progress: bool = True,
    wait: bool = False,
    strict: bool = False,
    page: bool = True,
) -> dict[str, dict[str, Any]]:
    """Run experiments in the run folder `folder`; returns (and writes) each one's results by name.

    Cells that fail are in the results with the reason; the same call goes on from there. All but the first of several
    processes return nothing. page: write report.html, the page of the results, beside them.
    """
    check_device(config)
    check_tracker(config.tracker)
    with claimed(folder, wait=wait), Opened() as opened:
        tools = Tools(opened, progress and processes().is_first)
        planned = [plan_experiment(experiment, config, tools, seeds) for experiment in experiments]
        outcome = execute(
            [node for each in planned for node in (*each.targets(), *each.probes())],
            folder,
            essential=[node for each in planned for node in each.essential()],
            progress=progress,
            strict=strict,
        )
        if not processes().is_first:
            return {}
        track(config.tracker, folder, outcome.made.values())
        return {each.experiment.name: _write(folder, each, outcome, preset, tools, compare, page) for each in planned}


def survey_experiments(
    folder: Path, experiments: list[Experiment], config: RunConfig, seeds: tuple[int, ...] = ()
) -> list[dict[str, Any]]:
    """What `run_experiments` would do: a row a node (`plan.dry_run.survey`)."""
    check_is_run(folder)
    tools = Tools(Opened(), False)
    planned = [plan_experiment(experiment, config, tools, seeds) for experiment in experiments]
    return survey([node for each in planned for node in (*each.essential(), *each.targets(), *each.probes())], folder)


def _write(
    folder: Path,
    planned: PlannedExperiment,
    outcome: Outcome,
    preset: str,
    tools: Tools,
    compare: str | None,
    page: bool,
) -> dict[str, Any]:
    results = _results(folder, planned, outcome, preset, tools)
    path = folder / "experiments" / planned.experiment.name
    sweep(path)
    with atomic_folder(path) as out:
        write_json(out / "results.json", results)
        write_json(out / "config.json", to_dict(planned.config))
        write_experiment(load_experiment(out), out, compare, folder)
        if planned.experiment.costs:
            costs = {index: each.costs for index, each in enumerate(planned.cells) if each.costs is not None}
            write_costs(results, costs, outcome, planned.config.efficiency.prices, out)
        if page and results["rows"]:
            write_page([out], out / FILE_NAME, folder)
    return results


def _results(folder: Path, planned: PlannedExperiment, outcome: Outcome, preset: str, tools: Tools) -> dict[str, Any]:
    """The contract of `uqabench.settings.results`: one entry a cell, one row a cell and scope."""
    experiment, config = planned.experiment, planned.config
    found = [each.cell for each in planned.cells]
    rows: list[dict[str, Any]] = []
    entries = []
    for index, each in enumerate(planned.cells):
        entry, metrics = _cell_entry(folder, each, outcome)
        entries.append(entry)
        rows += [{"cell": index, **row} for row in _score_rows(metrics)] if metrics else []
    first = next(iter(planned.plans.values()))
    split_seed = tools.opened.store(outcome.of(first.data)).manifest["config"]["split_seed"]
    return {
        "schema": 1,
        "kind": "experiment",
        "name": experiment.name,
        "title": experiment.title,
        "paper": experiment.paper,
        "preset": preset,
        "dataset": config.data.source,
        "users": config.questions.users,
        "llm": config.llm.name,
        "split_seed": split_seed,
        "seeds": list(dict.fromkeys(cell.seed for cell in found)),
        "versions": versions(),
        "folders": {"data": os.path.relpath(outcome.of(first.data).path, folder)},
        "mix": outcome.of(first.questions).json("metrics.json")[config.questions.users]["counts"],
        "axes": axes_of(found),
        "cells": entries,
        "rows": rows,
        "rule": _rule(config),
        **_tests(planned, outcome),
        "twins": _twins(planned, outcome),
    }


def _cell_entry(folder: Path, each: PlannedCell, outcome: Outcome) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """A cell's entry, and its metrics if it was evaluated."""
    cell = each.cell
    name = cell.method.name
    entry: dict[str, Any] = {"method": name, "label": display_name(name), "axes": cell.axes, "seed": cell.seed}
    if each.nodes is None or each.nodes.evaluate.key not in outcome.made:
        error = str(each.problem or outcome.cause(each.nodes.evaluate))
        return {**entry, "status": "failed", "error": error}, None
    stages = {"pretrain": each.nodes.pretrain, "align": each.nodes.align, "evaluate": each.nodes.evaluate}
    artifacts: dict[str, Artifact] = {stage: outcome.of(node) for stage, node in stages.items() if node is not None}
    metrics = artifacts["evaluate"].json("metrics.json")
    entry |= {
        "status": "done",
        "error": None,
        "avg_tokens": metrics["avg_tokens"],
        "seconds": {stage: round(artifact.seconds, 3) for stage, artifact in artifacts.items()},
        "predictions": _answers_file(folder, artifacts["evaluate"]),
    }
    if cell.method.has_vectors:
        align = cell.method.config.align
        entry["soft_tokens"] = find_integration(align.integration).n_tokens(align)
    probes = probes_of([each.nodes], outcome)
    if probes:
        entry["probes"] = probes[name]
        made = {place: outcome.made[node.key] for place, node in each.nodes.probes.items() if place in probes[name]}
        entry["probe_answers"] = {place: _answers_file(folder, probe) for place, probe in made.items()}
    if "pretrain" in artifacts:
        trained = artifacts["pretrain"].json("metrics.json")
        entry["pretrain"] = trained
        entry["sizes"] = {"encoder_parameters": trained["encoder_parameters"], **_model_size(cell.method)}
    return entry, metrics


def _answers_file(folder: Path, artifact: Artifact) -> str:
    return os.path.relpath(artifact.path / "predictions.jsonl", folder)


def _model_size(method: Method) -> dict[str, int]:
    """The paper's measure of size, 12 · layers · width² (Table 5), where the encoder is a built-in one."""
    encoder = method.config.pretrain.encoder
    if encoder.encoder not in ENCODER_PRESETS:
        return {}
    shape = encoder_config(encoder.encoder, encoder.preset, encoder.overrides)
    return {"model_size": 12 * shape.layers * shape.width**2}


def _score_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    scores = {"overall": metrics["overall"], **{t: metrics["tasks"].get(t) for t in TASKS}}
    scores |= {subtask: metrics["subtasks"].get(subtask) for subtask in SUBTASKS}
    scores |= metrics.get("levels", {})
    return [
        {"scope": scope, "n": score["n"], "accuracy": score["accuracy"], "ci95": score["ci95"]}
        for scope, score in scores.items()
        if score is not None
    ]


def _tests(planned: PlannedExperiment, outcome: Outcome) -> dict[str, list[dict[str, Any]]]:
    """Paired tests among the methods of an experiment without axes, and what the judges object to, for its first
    seed."""
    if axes_of([each.cell for each in planned.cells]):
        return {"comparisons": []}
    first = planned.cells[0].cell.seed
    done = [
        each
        for each in planned.cells
        if each.cell.seed == first and each.nodes is not None and each.nodes.evaluate.key in outcome.made
    ]
    if not done:
        return {"comparisons": []}
    folders = {each.cell.method.name: outcome.of(each.nodes.evaluate).path for each in done}
    rule, rows = _rule(planned.config), answers(folders)
    return {
        "comparisons": comparisons(rows, [each.cell.method for each in done], rule),
        "flags": flags(rows, rule),
    }


def _twins(planned: PlannedExperiment, outcome: Outcome) -> list[dict[str, Any]]:
    """Every encoder that was trained against its untrained twin, over all seeds of both."""
    same: dict[str, list[int]] = {}
    for index, each in enumerate(planned.cells):
        if each.nodes is not None and each.nodes.evaluate.key in outcome.made:
            same.setdefault(hash_json([each.cell.method.name, each.cell.axes]), []).append(index)
    scored = []
    for indices in same.values():
        cells = {planned.cells[index].cell.seed: planned.cells[index] for index in indices}
        folders = {seed: outcome.of(each.nodes.evaluate).path for seed, each in cells.items()}
        scored.append(Scored({seed: each.cell.method for seed, each in cells.items()}, folders, indices))
    return twin_differences(scored, _rule(planned.config))


def _rule(config: RunConfig) -> str:
    """How a prediction is compared with the answer (`questions.scoring`)."""
    return scoring_rule(config.evaluate.generate)
