"""The settings of a whole run, from a preset, a YAML file and `--set` overrides."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from uqabench.config import from_dict, load_yaml, merge, parse_override, require_least
from uqabench.data import PrepareConfig
from uqabench.errors import InputError
from uqabench.llm.prompts import PromptConfig
from uqabench.questions.config import QuestionConfig
from uqabench.stages.align import AlignConfig
from uqabench.stages.evaluate import EvaluateConfig
from uqabench.stages.pretrain import PretrainConfig
from uqabench.stages.train_lm import TrainLMConfig
from uqabench.vocabulary import BASELINES, ENCODERS

PRESETS = ("tiny", "demo", "small", "published", "paper")
TEXT_METHODS = ("text20", "text50")
DTYPES = ("float32", "bfloat16", "float16")
DEFAULT_METHODS = ENCODERS + TEXT_METHODS + BASELINES


@dataclass(frozen=True)
class DataConfig:
    """Where the log comes from. source: a name that `uqabench prepare` knows, or "store" for a prepared folder at
    `path`. options: the source's own settings. prepare: filters and split."""

    source: str = "completejourney"
    path: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)


@dataclass(frozen=True)
class QuestionsConfig:
    """Question sets. train, evaluation: settings of the generator. templates: a file of one's own."""

    train: QuestionConfig = field(default_factory=QuestionConfig)
    evaluation: QuestionConfig = field(default_factory=QuestionConfig)
    templates: str | None = None


@dataclass(frozen=True)
class LLMConfig:
    """The language model. name: "demo" (ships with uqabench, for the demo's data and split), "train" (a small one
    trained in this run with the settings of `train`), an alias installed by `uqabench llm add`, a Hugging Face name
    or a folder. questions: settings of the questions it is trained on. system: a system message. template_args:
    arguments of its chat template, such as `enable_thinking: false`. dtype: of its weights; what trains is float32."""

    name: str = "demo"
    dtype: str = "float32"
    system: str | None = None
    template_args: dict[str, Any] = field(default_factory=dict)
    train: TrainLMConfig = field(default_factory=TrainLMConfig)
    questions: QuestionConfig = field(default_factory=QuestionConfig)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"llm.dtype is '{self.dtype}': choose one of {', '.join(DTYPES)}.")


@dataclass(frozen=True)
class RunConfig:
    """A run: data, questions, language model, the three stages, and the methods to compare.

    seed is added to the seeds of the stages; split_seed lives in data.prepare.
    """

    data: DataConfig = field(default_factory=DataConfig)
    questions: QuestionsConfig = field(default_factory=QuestionsConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    llm: LLMConfig = field(default_factory=LLMConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    align: AlignConfig = field(default_factory=AlignConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    methods: tuple[str, ...] = DEFAULT_METHODS
    device: str = "cpu"
    seed: int = 0
    states_token_budget: int = 16_384

    def __post_init__(self) -> None:
        require_least(self, {"seed": 0, "states_token_budget": 1})
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise InputError(f"device is '{self.device}': choose cpu or cuda.")


def preset_mapping(name: str) -> dict[str, Any]:
    """The YAML mapping of a packaged preset."""
    if name not in PRESETS:
        raise InputError(f"There is no preset '{name}': choose one of {', '.join(PRESETS)}.")
    with resources.as_file(resources.files("uqabench") / "configs" / f"{name}.yaml") as path:
        return load_yaml(path)


def run_mapping(preset: str, file: Path | None = None, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Preset, then the file, then the overrides, merged from left to right."""
    mapping = preset_mapping(preset)
    if file is not None:
        mapping = merge(mapping, load_yaml(file))
    for text in overrides:
        mapping = merge(mapping, parse_override(text))
    return mapping


def run_config(preset: str = "demo", file: Path | None = None, overrides: tuple[str, ...] = ()) -> RunConfig:
    """The typed settings of a run (`run_mapping`)."""
    return from_dict(RunConfig, run_mapping(preset, file, overrides))
