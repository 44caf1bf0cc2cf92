"""The settings of a whole run, from a preset, a YAML file and `--set` overrides."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import model_validator
from pydantic_core import ArgsKwargs

from uqabench.errors import InputError
from uqabench.settings.data import DataConfig
from uqabench.settings.efficiency import EfficiencyConfig
from uqabench.settings.encoders import ENCODER_PRESETS, PRESET_NAMES
from uqabench.settings.llm import LLMConfig, PromptConfig
from uqabench.settings.questions import QuestionsConfig
from uqabench.settings.reader import from_dict, load_yaml, merge, nested, parse_override, to_dict
from uqabench.settings.schema import MAX_COUNT, MAX_LENGTH, MAX_SEED, is_section, section, setting
from uqabench.settings.sentences import name_shown, unknown_setting
from uqabench.settings.stages import AlignConfig, EvaluateConfig, PretrainConfig
from uqabench.vocabulary import BASELINES, ENCODERS, GIVEN_QUESTIONS, QUESTION_VERSIONS

PRESETS = (*PRESET_NAMES, "demo-v1", "planted")
"""Packaged settings of a run: one for each size of encoders, and the demo with the questions of version v1."""
TRACKERS = ("none", "wandb", "mlflow")
TEXT_METHODS = ("text20", "text50")
DEFAULT_METHODS = ENCODERS + TEXT_METHODS + BASELINES
_QUESTIONS = ("questions.train", "questions.evaluation", "llm.questions")
FOLLOWERS = {
    "history_length": ("pretrain.length", *(f"{name}.history" for name in _QUESTIONS)),
    "questions.version": tuple(f"{name}.version" for name in _QUESTIONS),
    "questions.matched_share": tuple(f"{name}.matched_share" for name in _QUESTIONS),
}
"""Settings that others follow where those are not given themselves."""


@section("methods")
class MethodConfig:
    """A method of your own: another one and what is set differently for it."""

    name: str = setting(
        help="what tables and folders call it",
        pattern=(r"[\w][\w .+@-]{0,79}", "a name of letters, digits, spaces and . + @ - _, at most 80"),
    )
    base: str = setting(help="the method that it is made from, e.g. hstu or text20")
    set: dict[str, Any] = setting(default_factory=dict, help="settings of the run by dotted name, for this method only")

    def __post_init__(self) -> None:
        _check_names(self.set, "set")


@section("")
class RunConfig:
    """A run: data, questions, language model, the three stages, and the methods to compare.

    seed is added to the seeds of the stages; split_seed lives in data.prepare. Where a leader of FOLLOWERS is given,
    its followers take its value unless they are given themselves. A built-in encoder whose preset has a `max_len` below
    the longest sequence that it will be shown gets that length as an override.
    """

    data: DataConfig = setting(default_factory=DataConfig)
    questions: QuestionsConfig = setting(default_factory=QuestionsConfig)
    prompt: PromptConfig = setting(default_factory=PromptConfig)
    llm: LLMConfig = setting(default_factory=LLMConfig)
    pretrain: PretrainConfig = setting(default_factory=PretrainConfig)
    align: AlignConfig = setting(default_factory=AlignConfig)
    evaluate: EvaluateConfig = setting(default_factory=EvaluateConfig)
    efficiency: EfficiencyConfig = setting(default_factory=EfficiencyConfig)
    methods: tuple[str | MethodConfig, ...] = setting(
        DEFAULT_METHODS, "what to compare: names, `name@variant`, or {name, base, set}"
    )
    variants: dict[str, dict[str, Any]] = setting(
        default_factory=dict, help="variants of your own: for each name the settings that `method@name` changes"
    )
    history_length: int | None = setting(
        None,
        "N in items for pre-training windows, questions and the language model's questions, where they set none",
        ge=4,
        le=MAX_LENGTH,
    )
    device: str = setting("cpu", "where models run", pattern=(r"cpu|cuda(:\d{1,3})?", "cpu, cuda or cuda:N"))
    seed: int = setting(0, "seed of the run, added to the stages' own", ge=0, le=MAX_SEED)
    probe: bool = setting(
        True, "whether linear probes read the embedding methods' states, pooled vectors and soft tokens"
    )
    tracker: str = setting(
        "none", "what also gets the numbers of training logs and the scores, beside TensorBoard", choices=TRACKERS
    )
    states_token_budget: int = setting(16_384, "most items of one forward pass of a frozen encoder", ge=1, le=MAX_COUNT)

    @model_validator(mode="before")
    @classmethod
    def _follow_leaders(cls, values: Any) -> Any:
        if isinstance(values, ArgsKwargs):
            return ArgsKwargs(values.args, _followed(values.kwargs or {}))
        return _followed(values) if isinstance(values, Mapping) else values

    def __post_init__(self) -> None:
        self._check_methods()
        self._check_seeds()
        self._check_users()
        self._check_permutations()
        for name, changes in self.variants.items():
            _check_names(changes, f"variants.{name_shown(name)}")
        encoder, longest = self.pretrain.encoder, self.longest_history
        presets = ENCODER_PRESETS.get(encoder.encoder)
        if presets and "max_len" not in encoder.overrides and presets[encoder.preset].max_len < longest:
            raised = dataclasses.replace(encoder, overrides={**encoder.overrides, "max_len": longest})
            object.__setattr__(self, "pretrain", dataclasses.replace(self.pretrain, encoder=raised))

    def _check_methods(self) -> None:
        names = [method if isinstance(method, str) else method.name for method in self.methods]
        for method in self.methods:
            if isinstance(method, MethodConfig) and names.count(method.name) > 1:
                raise ValueError(f"methods has two methods called '{method.name}': give one of them another name.")

    def _check_seeds(self) -> None:
        parts = {"pretrain": self.pretrain, "align": self.align, "evaluate": self.evaluate}
        for name, part in {**parts, "questions.train": self.questions.train}.items():
            if self.seed + part.seed > MAX_SEED:
                raise ValueError(
                    f"seed ({self.seed}) and {name}.seed ({part.seed}) are added and exceed {MAX_SEED:,}: lower one."
                )

    def _check_permutations(self) -> None:
        if self.evaluate.permutations > 1 and self.questions.evaluation.version == GIVEN_QUESTIONS:
            raise ValueError(
                "evaluate.permutations: the options of questions that came with the data are words of their text and "
                "cannot change places: set it to 1."
            )

    def _check_users(self) -> None:
        if self.questions.users == "validation" and self.questions.evaluation.version == GIVEN_QUESTIONS:
            raise ValueError(
                "questions.users is validation, and no questions about validation users came with the data: set "
                f"questions.version to {' or '.join(QUESTION_VERSIONS)}, or questions.users to evaluation."
            )
        drawn = self.data.source == "store" or self.data.prepare.validation_fraction > 0
        if self.questions.users == "validation" and not drawn:
            raise ValueError(
                "questions.users is validation, and data.prepare.validation_fraction is 0, so that there are no "
                "validation users: raise it, to 0.1 for example."
            )

    @property
    def longest_history(self) -> int:
        """The longest sequence of items that an encoder of this run is shown."""
        return max(self.pretrain.length, self.questions.train.history, self.questions.evaluation.history)


def _followed(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with a leader's value where FOLLOWERS are not given. What is no mapping stays as it is: it is a finished
    section, or an error that the validation names."""
    values = dict(values)
    for leader, followers in FOLLOWERS.items():
        value = _leader(values, leader)
        for path in followers if value is not None else ():
            if path == "llm.questions.version" and value == GIVEN_QUESTIONS:
                continue  # a language model that is trained in the run learns from questions of its own
            *sections, name = path.split(".")
            level: Any = values
            for part in sections:
                inner = level.get(part, {})
                if not isinstance(inner, Mapping):
                    break
                level[part] = level = dict(inner)
            else:
                level.setdefault(name, value)
    return values


def _leader(values: Mapping[str, Any], path: str) -> Any:
    *sections, name = path.split(".")
    level: Any = values
    for part in sections:
        level = level.get(part, {})
        if not isinstance(level, Mapping):  # a finished section, whose parts were given together
            return None
    return level.get(name)


def _check_names(changes: Mapping[str, Any], where: str) -> None:
    """ValueError for a dotted or nested name in `changes` that is no setting of a run."""
    try:
        _check_level(RunConfig, nested(changes), "")
    except InputError as error:
        raise ValueError(f"{where}: {error}") from None


def _check_level(cls: type, changes: Mapping[str, Any], prefix: str) -> None:
    known = [field.name for field in dataclasses.fields(cls)]
    for name, value in changes.items():
        label = f"{prefix}{name_shown(name)}"
        if name not in known:
            raise InputError(unknown_setting(label, name, known))
        hint = cls.__hints__[name]  # type: ignore[attr-defined]
        if is_section(hint):
            if not isinstance(value, Mapping):
                raise InputError(f"{label} is a section: name one of its settings.")
            _check_level(hint, value, f"{label}.")


def preset_mapping(name: str) -> dict[str, Any]:
    """The YAML mapping of a packaged preset, laid over its `base` where it names one."""
    return merge_layers(preset_layers(name))


def preset_layers(name: str) -> list[tuple[str, dict[str, Any]]]:
    """(origin, mapping) of a packaged preset and of the presets that it is based on, base first."""
    if name not in PRESETS:
        raise InputError(f"There is no preset '{name_shown(name)}': choose one of {', '.join(PRESETS)}.")
    with resources.as_file(resources.files("uqabench") / "configs" / f"{name}.yaml") as path:
        return _based(load_yaml(path), f"preset {name}", default=None)


def _based(mapping: dict[str, Any], origin: str, default: str | None) -> list[tuple[str, dict[str, Any]]]:
    """The layers below a file's mapping (its `base`, else `default`), and the mapping itself."""
    mapping = dict(mapping)
    base = mapping.pop("base", default)
    if base is not None and not isinstance(base, str):
        raise InputError(f"The {origin}: base must be the name of a preset: {', '.join(PRESETS)}.")
    return [*(preset_layers(base) if base else []), (origin, mapping)]


def run_layers(
    preset: str, file: Path | None = None, overrides: tuple[str, ...] = ()
) -> list[tuple[str, dict[str, Any]]]:
    """(origin, mapping) of all that a run's settings come from, later ones laid over earlier ones.

    A `base: PRESET` line in the file takes the place of `preset`.
    """
    layers = preset_layers(preset) if file is None else _based(load_yaml(file), f"file {file}", preset)
    return layers + [(f"--set {name_shown(text)}", parse_override(text)) for text in overrides]


def merge_layers(layers: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """The mappings of `run_layers`, merged."""
    merged: dict[str, Any] = {}
    for _, mapping in layers:
        merged = merge(merged, mapping)
    return merged


def run_mapping(preset: str, file: Path | None = None, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Preset, then the file, then the overrides, merged from left to right."""
    return merge_layers(run_layers(preset, file, overrides))


def run_config(preset: str = "demo", file: Path | None = None, overrides: tuple[str, ...] = ()) -> RunConfig:
    """The settings of a run (`run_mapping`), checked as a whole."""
    return made_from(run_mapping(preset, file, overrides))


def made_from(mapping: Mapping[str, Any]) -> RunConfig:
    """A run's settings from a mapping, which is kept for `patched`."""
    config = from_dict(RunConfig, mapping)
    object.__setattr__(config, "_mapping", dict(mapping))
    return config


def patched(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """The same run with `changes` laid over it, names nested or dotted.

    What follows `history_length`, and an encoder's raised `max_len`, follow the changes: they are worked out again from
    the mapping that `config` was made from. Settings that were put together in Python all count as given.
    """
    return made_from(merge(getattr(config, "_mapping", None) or to_dict(config), nested(changes)))
