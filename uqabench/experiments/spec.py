"""Experiments as YAML: which methods are crossed with which settings, and for which seeds.

    title: Pre-training objectives and encoder inputs
    paper: table3                       # the paper's table that it stands beside, if any
    seeds: [0]
    sweeps:
      - methods: [trm++]                # entries as in the setting `methods`
        axes:                           # every combination of values is a cell for every method
          objective: {SL: {pretrain.objective: sl}, CL: {pretrain.objective: cl}}
          size: {set: [a.layers, a.width], values: [[4, 256], [8, 512]], scale: {demo: [4, 8]}}
          integration: {set: [align.integration], each: integrations}

An axis is a mapping from its values' names to patches, or a grid: `values` are rows of values for the settings in
`set`, counts divided by the preset's row of `scale`, and named by `label` (default: the values, joined by ×).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

from uqabench.errors import InputError
from uqabench.experiments.shipped import shipped_names
from uqabench.integrations import integration_names
from uqabench.plan.methods import Method, fitting, parse_method
from uqabench.settings import MethodConfig, RunConfig, from_dict, load_yaml, patched
from uqabench.settings.schema import MAX_SEED, section, setting

PAPER_TABLES = ("table2", "table3", "table4", "table5", "table6")

Axis = dict[str, dict[str, Any]]
"""Name of a value → the settings that it stands for, in the order of the table."""


@section("sweeps")
class Sweep:
    """Methods crossed with the values of all axes."""

    methods: tuple[str | MethodConfig, ...] = setting(help="what is crossed: entries as in the setting `methods`")
    axes: dict[str, dict[str, Any]] = setting(default_factory=dict, help="by name, values and what they set, or a grid")


@section("experiment")
class Experiment:
    """A named set of sweeps."""

    title: str = setting(help="heading of its table")
    sweeps: tuple[Sweep, ...] = setting(help="what is run")
    paper: str | None = setting(None, "the paper's table that shows the same", choices=PAPER_TABLES)
    seeds: tuple[int, ...] = setting(
        (0,), "added to the run's seed; each cell is run with all of them", ge=0, le=MAX_SEED
    )
    costs: bool = setting(False, "measure tokens, time and memory of every method that asks the language model")
    choice: bool = setting(
        False, 'settings are chosen by it: it runs on validation users only, and "all" leaves it out'
    )
    name: str = setting("", "of its folder")


@dataclass(frozen=True)
class Cell:
    """One method under one value of each axis and one seed."""

    method: Method
    axes: dict[str, str]
    seed: int


def experiment_names() -> tuple[str, ...]:
    """The experiments that ship with uqabench, in the order of the paper's tables."""
    found = [load_experiment(name) for name in shipped_names()]
    return tuple(experiment.name for experiment in sorted(found, key=lambda each: (each.paper or "~", each.name)))


def load_experiment(name: str) -> Experiment:
    """An experiment that ships with uqabench, by name, or one's own YAML file, by path."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        return _read(path, path.stem)
    packaged = resources.files("uqabench") / "configs" / "experiments" / f"{name}.yaml"
    if not packaged.is_file():
        raise InputError(
            f"There is no experiment '{name}': choose one of {', '.join((*experiment_names(), 'all'))}, or name a YAML "
            "file of your own."
        )
    with resources.as_file(packaged) as path:
        return _read(path, name)


def _stands_apart(name: str) -> bool:
    experiment = load_experiment(name)
    return experiment.costs or experiment.choice


def load_experiments(names: list[str]) -> list[Experiment]:
    """Several experiments by name or path; "all" stands for every one that ships with uqabench, but for those that
    choose settings, and those that measure costs: these want a machine that does nothing else."""
    every = [name for name in experiment_names() if not _stands_apart(name)] if "all" in names else []
    chosen = [each for name in names for each in (every if name == "all" else (name,))]
    found = [load_experiment(name) for name in dict.fromkeys(chosen)]
    titles = [experiment.name for experiment in found]
    twice = next((name for name in titles if titles.count(name) > 1), None)
    if twice:
        raise InputError(f"Two experiments are called '{twice}': rename one of the files.")
    return found


def _read(path: Path, name: str) -> Experiment:
    experiment = from_dict(Experiment, {**load_yaml(path), "name": name}, f"experiment {name}")
    if not any(sweep.methods for sweep in experiment.sweeps) or not experiment.seeds:
        raise InputError(f"{path}: an experiment needs at least one sweep with a method, and one seed.")
    return experiment


def axis_values(axis: dict[str, Any], preset: str, where: str) -> Axis:
    """The values of an axis for one preset; InputError names what does not fit."""
    if "set" not in axis:
        if not axis or not all(isinstance(patch, dict) for patch in axis.values()):
            raise InputError(f"{where}: map the name of each value to its settings, or give `set` and `values`.")
        return {str(name): patch for name, patch in axis.items()}
    settings = axis["set"]
    if axis.get("each") == "integrations":
        return {name: {settings[0]: name} for name in integration_names()}
    rows = axis.get("values")
    scale = axis.get("scale", {}).get(preset, [1] * len(settings))
    if not rows or not all(isinstance(row, list) and len(row) == len(settings) for row in (*rows, scale)):
        raise InputError(f"{where}: each row of `values` and `scale` needs {len(settings)} numbers, one a setting.")
    template = axis.get("label", " × ".join(f"{{{index}}}" for index in range(len(settings))))
    values: Axis = {}
    for row in rows:
        scaled = [_scaled(value, divisor) for value, divisor in zip(row, scale, strict=True)]
        values[template.format(*scaled)] = dict(zip(settings, scaled, strict=True))
    return values


def _scaled(value: Any, divisor: int) -> Any:
    """Counts are divided, but not below 1; texts and fractions stay as they are."""
    return max(1, value // divisor) if isinstance(value, int) and not isinstance(value, bool) else value


def cells(experiment: Experiment, config: RunConfig, seeds: tuple[int, ...] = ()) -> list[Cell]:
    """Every cell of an experiment, seeds innermost; `seeds` in place of the experiment's own. Axes are scaled as the
    preset of the encoders says; of an experiment that ships with uqabench, methods that cannot answer the questions are
    left out."""
    found = []
    preset, ships = config.pretrain.encoder.preset, experiment.name in shipped_names()
    for index, sweep in enumerate(experiment.sweeps):
        axes = {
            name: axis_values(axis, preset, f"experiment {experiment.name}, sweeps[{index}].axes.{name}")
            for name, axis in sweep.axes.items()
        }
        for entry in fitting(sweep.methods, config) if ships else sweep.methods:
            for values in product(*axes.values()):
                chosen = dict(zip(axes, values, strict=True))
                patch = {key: value for axis, name in chosen.items() for key, value in axes[axis][name].items()}
                for seed in seeds or experiment.seeds:
                    method = parse_method(entry, patched(config, {"seed": config.seed + seed}), patch)
                    title = " ".join([method.name, *values, *([f"seed {seed}"] if seed else [])])
                    found.append(Cell(replace(method, title=title), chosen, seed))
    return found


def axes_of(found: list[Cell]) -> dict[str, list[str]]:
    """The values that each axis takes, in the order of the table."""
    axes: dict[str, list[str]] = {}
    for cell in found:
        for axis, value in cell.axes.items():
            if value not in axes.setdefault(axis, []):
                axes[axis].append(value)
    return axes
