"""The page of findings: the paper's claims held against experiments, whether the score measures the encoder, and what
pre-training adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uqabench.report.claims import MARGIN, TIMES_MARGIN, Finding, findings_of
from uqabench.report.goals import MOST_TOKENS, Goal, Measured, goals_of
from uqabench.report.other_claims import other_findings_of
from uqabench.report.results import load_experiment
from uqabench.report.rows import ScoreRow, experiment_rows
from uqabench.settings.results import AdjustedDifference, ExperimentResults

GOALS = 5
"""How many goals `report.goals` has."""


@dataclass(frozen=True)
class Experiment:
    """An experiment's results and its rows, with answers where their files lie in the folder `run`."""

    results: ExperimentResults
    rows: list[ScoreRow]
    run: Path


def read_experiments(folders: Sequence[Path]) -> list[Experiment]:
    """All experiments of run folders, or the experiment folders themselves."""
    found = []
    for folder in folders:
        files = sorted(folder.glob("experiments/*/results.json")) or [folder / "results.json"]
        for file in files:
            results, run = load_experiment(file), file.parent.parent.parent
            found.append(Experiment(results, experiment_rows(results, run), run))
    return found


def findings_page(experiments: Sequence[Experiment]) -> str:
    """Markdown: for each data set, language model and preset a table of claims, of goals, and of untrained twins."""
    parts = [
        "# Findings",
        "What the paper claims, held against what this repository can measure, whether the score measures the encoder, "
        "and what pre-training adds to it. All tables are made from result files by `uqabench findings RUN … --out "
        "docs/findings.md`.",
    ]
    places = dict.fromkeys(_place(experiment.results) for experiment in experiments)
    for place in places:
        of_place = [experiment for experiment in experiments if _place(experiment.results) == place]
        parts.append(f"## {place}")
        parts += _claims(of_place)
        parts += _goals(of_place)
        parts += _twins(of_place)
    return "\n\n".join(parts) + "\n"


def _place(results: ExperimentResults) -> str:
    return f"Data set {results['dataset']}, language model {results['llm']}, preset {results['preset']}"


def _claims(experiments: Sequence[Experiment]) -> list[str]:
    findings = [
        (finding, experiment.results)
        for experiment in experiments
        for find in (findings_of, other_findings_of)
        for finding in find(experiment.results["name"], experiment.rows)
    ]
    if not findings:
        return []
    lines = ["| claim of the paper | paper | here | verdict |", "| :-- | --: | --: | :-- |"]
    lines += [_claim_line(finding, results) for finding, results in findings]
    return [
        "\n".join(lines),
        "Differences in percentage points, with the 95 % interval over users. A claim holds where its whole interval "
        f"is on the claimed side of zero, and does not where it is on the other; “about the same” is ± {MARGIN:g} "
        "points. The best of several is chosen on the same questions, which flatters it a little. Tokens are counted: "
        f"a factor holds from {100 * (1 - TIMES_MARGIN):.0f} % of the paper's on.",
    ]


def _claim_line(finding: Finding, results: ExperimentResults) -> str:
    questions = sum(results.get("mix", {}).values())
    notes = [
        _named(results),
        *([f"{questions:,} questions"] if questions else []),
        *([finding.note] if finding.note else []),
    ]
    paper = "-" if finding.paper is None else _value(finding, finding.paper)
    interval = ""
    if finding.ci95 is not None:
        low, high = finding.ci95
        interval = f" [{low:+.1f}, {high:+.1f}]"
    ours = _value(finding, finding.ours, interval)
    return f"| {finding.text} ({', '.join(notes)}) | {paper} | {ours} | **{finding.verdict}** |"


def _value(finding: Finding, value: float, interval: str = "") -> str:
    if finding.unit == "times":
        return f"{value:.1f} times"
    return f"{value:+.1f}{interval}{'' if finding.unit == 'points' else f' {finding.unit}'}"


def _goals(experiments: Sequence[Experiment]) -> list[str]:
    """For each experiment that all five goals can be held against a table of them."""
    parts = []
    for experiment in experiments:
        goals = goals_of(Measured(experiment.results, experiment.rows, experiment.run))
        if len({goal.number for goal in goals}) < GOALS:
            continue
        lines = ["| | | goal | here | |", "| --: | :-- | --: | --: | :-- |", *map(_goal_line, goals)]
        parts += [
            f"### Does the score measure the encoder? ({_named(experiment.results)})",
            "\n".join(lines),
            "Percent and percentage points, with 95 % intervals over users; seeds are taken together. 1: the best "
            f"method of at most {MOST_TOKENS} soft tokens, chosen on the same questions, against the best text. 2: p "
            "after Holm's correction for the tests of a scope. 4: of the method's own soft tokens, and of exact ones "
            "(`history-vector`). 5: what is found with a power of 80 %, and whether the probes of their soft tokens "
            "put encoders that the score tells apart (p < 0.05, Holm) in the same order.",
        ]
    return parts


def _goal_line(goal: Goal) -> str:
    verdict = "met" if goal.met else "**not met**"
    return f"| {goal.number} | {goal.text} | {goal.wanted} | {goal.found} | {verdict} |"


def _named(results: ExperimentResults) -> str:
    seeds = len(results["seeds"])
    return f"`{results['name']}`, {seeds} seed{'s' if seeds > 1 else ''}"


def _twins(experiments: Sequence[Experiment]) -> list[str]:
    """For each experiment with twins (`settings.results.TwinDifference`) a table of them, with scores and gains."""
    parts = []
    for experiment in experiments:
        trained = [row for row in experiment.rows if row.over_twin is not None]
        if not trained:
            continue
        lines = [
            "| pre-trained encoder | overall | its untrained twin | difference | on action prediction |",
            "| :-- | --: | --: | --: | --: |",
            *(_twin_line(row, _twin(experiment, row)) for row in trained),
        ]
        parts += [
            f"### What pre-training adds ({_named(experiment.results)})",
            "\n".join(lines),
            "Accuracy in percent, ± the standard deviation over seeds. Differences are paired over the same questions "
            "of all seeds, with 95 % intervals over users; \\* p < 0.05, \\*\\* p < 0.01 after Holm's correction for "
            f"the {len(trained)} tests of a column.",
        ]
    return parts


def _twin(experiment: Experiment, trained: ScoreRow) -> ScoreRow:
    """The row of the encoder's untrained twin."""
    cell = experiment.results["cells"][trained.over_twin["twin_cells"][0]]
    return next(row for row in experiment.rows if row.has(cell))


def _twin_line(trained: ScoreRow, untrained: ScoreRow) -> str:
    same = [str(value) for axis, value in trained.axes.items() if untrained.axes.get(axis) == value]
    gains = [trained.over_twin, trained.over_twin.get("tasks", {}).get("action_prediction")]
    cells = [", ".join([trained.label, *same]), *map(_score, (trained, untrained)), *map(_gain, gains)]
    return f"| {' | '.join(cells)} |"


def _score(row: ScoreRow) -> str:
    spread = f" ± {row.spread['overall']:.2f}" if "overall" in row.spread else ""
    return f"{row.scores['overall']['accuracy']:.2f}{spread}"


def _gain(found: AdjustedDifference | None) -> str:
    if found is None:
        return "-"
    stars = r"\*\*" if found["p_holm"] < 0.01 else r"\*" if found["p_holm"] < 0.05 else ""
    low, high = found["ci95"]
    return f"{found['difference']:+.2f} [{low:+.2f}, {high:+.2f}]{stars}"
