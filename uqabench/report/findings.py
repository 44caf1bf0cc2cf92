"""The page of findings: each claim of the paper held against experiments, and what pre-training adds to the score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uqabench.questions.scoring import scope_mask
from uqabench.questions.statistics import PairedDifference, holm, paired_difference
from uqabench.report.claims import MARGIN, Finding, findings_of
from uqabench.report.results import load_experiment
from uqabench.report.rows import ScoreRow, experiment_rows
from uqabench.settings.results import ExperimentResults

UNTRAINED = "untrained"
"""The value of an axis, and the name of the variant, that stands for an encoder with its initial weights."""
TWIN_SCOPES = ("overall", "action_prediction")
SEED = 0


@dataclass(frozen=True)
class Experiment:
    """An experiment's results and its rows, with answers where their files lie beside."""

    results: ExperimentResults
    rows: list[ScoreRow]


def read_experiments(folders: Sequence[Path]) -> list[Experiment]:
    """All experiments of run folders, or the experiment folders themselves."""
    found = []
    for folder in folders:
        files = sorted(folder.glob("experiments/*/results.json")) or [folder / "results.json"]
        for file in files:
            results = load_experiment(file)
            found.append(Experiment(results, experiment_rows(results, file.parent.parent.parent)))
    return found


def findings_page(experiments: Sequence[Experiment]) -> str:
    """Markdown: a table of claims for each data set, language model and preset, then one of untrained twins."""
    parts = [
        "# Findings",
        "What the paper claims, held against what this repository can measure, and what pre-training adds to the score."
        " Both tables are made from result files by `uqabench findings RUN … --out docs/findings.md`.",
    ]
    places = dict.fromkeys(_place(experiment.results) for experiment in experiments)
    for place in places:
        of_place = [experiment for experiment in experiments if _place(experiment.results) == place]
        parts.append(f"## {place}")
        parts += _claims(of_place)
        parts += _twins(of_place)
    return "\n\n".join(parts) + "\n"


def _place(results: ExperimentResults) -> str:
    return f"Data set {results['dataset']}, language model {results['llm']}, preset {results['preset']}"


def _claims(experiments: Sequence[Experiment]) -> list[str]:
    findings = [
        (finding, experiment.results)
        for experiment in experiments
        for finding in findings_of(experiment.results["name"], experiment.rows)
    ]
    if not findings:
        return []
    lines = ["| claim of the paper | paper | here | verdict |", "| :-- | --: | --: | :-- |"]
    lines += [_claim_line(finding, results) for finding, results in findings]
    return [
        "\n".join(lines),
        "Differences in percentage points, with the 95 % interval over users. A claim holds where its whole interval "
        f"is on the claimed side of zero, and does not where it is on the other; “about the same” is ± {MARGIN:g} "
        "points. The best of several is chosen on the same questions, which flatters it a little.",
    ]


def _claim_line(finding: Finding, results: ExperimentResults) -> str:
    low, high = finding.ci95
    unit = "" if finding.claim.unit == "points" else f" {finding.claim.unit}"
    ours = f"{finding.ours:+.1f} [{low:+.1f}, {high:+.1f}]{unit}"
    seeds = len(results["seeds"])
    experiment = f"`{results['name']}`, {seeds} seed{'s' if seeds > 1 else ''}"
    return f"| {finding.claim.text} ({experiment}) | {finding.paper:+.1f}{unit} | {ours} | **{finding.verdict}** |"


@dataclass(frozen=True)
class Twin:
    """A pre-trained row beside its untrained one, and their difference by scope."""

    trained: ScoreRow
    untrained: ScoreRow
    differences: dict[str, PairedDifference]


def twins_of(rows: Sequence[ScoreRow]) -> list[Twin]:
    """Rows of an experiment that differ in nothing but that one of them is untrained, both with answers."""
    found = []
    for row in rows:
        axis = next((axis for axis, value in row.axes.items() if value == UNTRAINED), None)
        if axis is None or row.answers is None:
            continue
        for other in rows:
            same_axes = {**other.axes, axis: UNTRAINED} == row.axes and other.axes[axis] != UNTRAINED
            if other.method == row.method and same_axes and other.answers is not None and other.seeds == row.seeds:
                found.append(Twin(other, row, {scope: _difference(other, row, scope) for scope in TWIN_SCOPES}))
    return found


def _difference(trained: ScoreRow, untrained: ScoreRow, scope: str) -> PairedDifference:
    asked = scope_mask(trained.answers.subtasks, scope)
    return paired_difference(
        trained.answers.correct[asked], untrained.answers.correct[asked], trained.answers.users[asked], seed=SEED
    )


def _twins(experiments: Sequence[Experiment]) -> list[str]:
    parts = []
    for experiment in experiments:
        twins = twins_of(experiment.rows)
        if not twins:
            continue
        p_values = [twin.differences[scope].p_value for twin in twins for scope in TWIN_SCOPES]
        adjusted = iter(holm(p_values))
        lines = [
            "| pre-trained encoder | overall | its untrained twin | difference | on action prediction |",
            "| :-- | --: | --: | --: | --: |",
        ]
        for twin in twins:
            scores = [_score(row) for row in (twin.trained, twin.untrained)]
            gains = [_gain(twin.differences[scope], float(next(adjusted))) for scope in TWIN_SCOPES]
            lines.append(f"| {_twin_name(twin)} | {' | '.join(scores)} | {' | '.join(gains)} |")
        seeds = len(experiment.results["seeds"])
        parts += [
            f"### What pre-training adds (`{experiment.results['name']}`, {seeds} seed{'s' if seeds > 1 else ''})",
            "\n".join(lines),
            "Accuracy in percent, ± the standard deviation over seeds. Differences are paired over the same questions "
            "of all seeds, with 95 % intervals over users; \\* p < 0.05, \\*\\* p < 0.01 after Holm's correction for "
            f"the {len(p_values)} tests of the table.",
        ]
    return parts


def _twin_name(twin: Twin) -> str:
    """Its label, and what else its axes say."""
    same = [str(value) for axis, value in twin.trained.axes.items() if twin.untrained.axes[axis] == value]
    return ", ".join([twin.trained.label, *same])


def _score(row: ScoreRow) -> str:
    spread = f" ± {row.spread['overall']:.2f}" if "overall" in row.spread else ""
    return f"{row.scores['overall']['accuracy']:.2f}{spread}"


def _gain(found: PairedDifference, p_value: float) -> str:
    stars = r"\*\*" if p_value < 0.01 else r"\*" if p_value < 0.05 else ""
    low, high = found.ci95
    return f"{found.difference:+.2f} [{low:+.2f}, {high:+.2f}]{stars}"
