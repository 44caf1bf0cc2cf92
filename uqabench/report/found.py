"""What a report is about: the results of a run or an experiment, and the stage folders that its answers came from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from uqabench.data.store import InteractionStore
from uqabench.errors import InputError
from uqabench.files import read_json
from uqabench.questions.questions import QuestionSet
from uqabench.report.results import load_experiment, load_results
from uqabench.report.rows import ScoreRow, experiment_rows, run_rows
from uqabench.report.scores import paper_order
from uqabench.settings.results import ExperimentResults, RunResults

COSTS = "efficiency.json"
LARGEST_DEPTH = 3  # folders above an experiment's results in which its run is sought


@dataclass(frozen=True)
class SeedAnswers:
    """One seed's answers of a row: the prediction file and the stage folder that it lies in."""

    seed: int
    predictions: Path

    @property
    def folder(self) -> Path:
        return self.predictions.parent


@dataclass(frozen=True)
class Found:
    """Results as rows, with the answers of each row's seeds; `facts` says what was run, in a few words each.

    rule: how answers are scored (`questions.scoring`). settings: the run's, where they are known. costs: the rows of
    efficiency.json, where an experiment measured what its methods cost.
    """

    name: str
    title: str
    facts: list[str]
    run: Path
    results: dict[str, Any]
    rows: list[ScoreRow]
    answers: list[list[SeedAnswers]]
    rule: str
    settings: dict[str, Any] = field(default_factory=dict)
    costs: list[dict[str, Any]] = field(default_factory=list)


def find(path: Path | str, run: Path | str | None = None) -> list[Found]:
    """What lies at `path`: a run's folder, an experiment's, or a run's folder that holds experiments alone.

    run: the folder of the experiment's run, where it is not one of the folders above it. InputError where there are no
    results, or where answers are missing that they rest upon.
    """
    path = Path(path)
    if path.is_file():
        path = path.parent
    if not (path / "results.json").is_file():
        inner = sorted(file.parent for file in path.glob("experiments/*/results.json"))
        if not inner:
            raise InputError(f"{path} holds no results: name the folder of a finished run or of an experiment.")
        return [found for folder in inner for found in find(folder, path)]
    kind = read_json(path / "results.json")
    if isinstance(kind, dict) and kind.get("kind") == "experiment":
        run = Path(run) if run else _run_of(path)
        results = load_experiment(path)
        found = found_experiment(results, experiment_rows(results, run), run, _settings(path, run))
        costs = read_json(path / COSTS)["rows"] if (path / COSTS).is_file() else []
        return [replace(found, costs=costs)]
    return [found_run(load_results(path), path, _settings(path))]


def found_run(results: RunResults, run: Path, settings: dict[str, Any]) -> Found:
    """A run's results, whose answers lie in the folder `run`; rows in the order of the paper."""
    rows = run_rows(results)
    rows = [rows[index] for index in paper_order([row.method for row in rows])]
    seed = results.get("seed", 0)
    answers = [[_answers(run, seed, results["methods"][row.method].get("predictions"), row.method)] for row in rows]
    rule = "starts-with" if settings.get("evaluate", {}).get("generate") else "letter"
    facts = [f"data set {results['dataset']}", f"language model {results['llm']}", f"seed {seed}"]
    name = run.resolve().name
    return Found(name, f"Run {name}", facts, run, dict(results), rows, answers, rule, settings)


def found_experiment(results: ExperimentResults, rows: list[ScoreRow], run: Path, settings: dict[str, Any]) -> Found:
    """An experiment's results; rows: what `experiment_rows` made of them."""
    if not results["axes"]:
        rows = [rows[index] for index in paper_order([row.method for row in rows])]
    answers = []
    for row in rows:
        cells = [
            cell
            for cell in results["cells"]
            if (cell["method"], cell["label"], cell["axes"]) == (row.method, row.label, row.axes)
            and cell["status"] == "done"
        ]
        answers.append([_answers(run, cell["seed"], cell.get("predictions"), row.name) for cell in cells])
    facts = [f"data set {results['dataset']}", f"language model {results['llm']}"]
    facts += [f"preset {results['preset']}"] if results.get("preset") else []
    seeds = sorted({seed for row in rows for seed in row.seeds})
    facts += [f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"] if seeds else []
    title = results.get("title") or results["name"]
    rule = results.get("rule", "letter")
    return Found(results["name"], title, facts, run, dict(results), rows, answers, rule, settings)


def has_answers(results: ExperimentResults, run: Path) -> bool:
    """Whether the answers of all finished cells lie in the folder `run`."""
    names = [cell.get("predictions") for cell in results["cells"] if cell["status"] == "done"]
    return all(name and (run / name).is_file() for name in names)


def _settings(*folders: Path) -> dict[str, Any]:
    """The run's settings from the first of the folders that has them."""
    return next((read_json(folder / "config.json") for folder in folders if (folder / "config.json").is_file()), {})


def _run_of(experiment: Path) -> Path:
    above = list(experiment.resolve().parents)[:LARGEST_DEPTH]
    found = next((folder for folder in above if (folder / "uqabench-run.json").is_file()), None)
    if found is None:
        raise InputError(f"{experiment} does not lie in a run's folder: the report needs the answers that are there.")
    return found


def _answers(run: Path, seed: int, name: str | None, method: str) -> SeedAnswers:
    if not name or not (run / name).is_file():
        raise InputError(f"The answers of {method} are not in {run}: run the command again that wrote the results.")
    return SeedAnswers(seed, run / name)


class Stages:
    """The stage folders of a run, found by what they hold: manifests name their inputs by content."""

    def __init__(self, found: Found) -> None:
        self._run, self._results = found.run, found.results
        self._by_stage: dict[str, dict[str, Path]] = {}

    def inputs(self, folder: Path) -> dict[str, str]:
        """The content of what a stage read, by role."""
        return read_json(folder / "manifest.json")["inputs"]

    def of(self, stage: str, content: str | None) -> Path | None:
        """A folder of a stage with that content; None where the run holds none."""
        if stage not in self._by_stage:
            manifests = sorted((self._run / stage).glob("*/manifest.json"))
            self._by_stage[stage] = {read_json(file)["content"]: file.parent for file in manifests}
        return self._by_stage[stage].get(content or "")

    def questions(self, content: str) -> QuestionSet:
        """The questions that an answer's stage read: about evaluation users, or validation users."""
        folder = self.of("questions", content)
        if folder is None:
            raise InputError(f"{self._run} no longer holds the questions of its answers: run the same command again.")
        return QuestionSet.open(folder / f"{self._results.get('users', 'evaluation')}.arrow")

    def store(self, content: str) -> InteractionStore:
        """The interactions that the questions are about: prepared in the run, or elsewhere and named in its results."""
        given = self._results.get("folders", {}).get("data")
        folders = [*([self._run / given] if given else []), *sorted((self._run / "data").glob("*"))]
        for folder in folders:
            file = folder / "store.json"
            if file.is_file() and read_json(file).get("content_hash") == content:
                return InteractionStore.open(folder)
        raise InputError(f"{self._run} no longer holds the data of its answers: run the same command again.")
