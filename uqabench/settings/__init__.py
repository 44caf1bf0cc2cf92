"""One schema of all settings: types, bounds, choices and help, presets, and the reader of YAML and `--set`.

Light: it imports neither numpy nor torch. `docs/settings.md` is generated from it.
"""

from uqabench.settings.data import DataConfig, PrepareConfig
from uqabench.settings.encoders import ENCODER_PRESETS, PRESET_NAMES, EncoderConfig, UserEncoderConfig, encoder_config
from uqabench.settings.llm import LLMConfig, PromptConfig, SmallLMConfig, TrainLMConfig
from uqabench.settings.questions import PAPER_MIX, QuestionConfig, QuestionsConfig
from uqabench.settings.reader import from_dict, key_dict, load_yaml, merge, nested, parse_override, to_dict
from uqabench.settings.run import MethodConfig, RunConfig, patched, preset_mapping, run_config, run_mapping
from uqabench.settings.stages import AlignConfig, EvaluateConfig, PretrainConfig
from uqabench.settings.training import OptimConfig

__all__ = [
    "PAPER_MIX",
    "ENCODER_PRESETS",
    "PRESET_NAMES",
    "AlignConfig",
    "DataConfig",
    "EncoderConfig",
    "EvaluateConfig",
    "LLMConfig",
    "MethodConfig",
    "OptimConfig",
    "PrepareConfig",
    "PretrainConfig",
    "PromptConfig",
    "QuestionConfig",
    "QuestionsConfig",
    "RunConfig",
    "SmallLMConfig",
    "TrainLMConfig",
    "UserEncoderConfig",
    "encoder_config",
    "from_dict",
    "key_dict",
    "load_yaml",
    "merge",
    "nested",
    "parse_override",
    "patched",
    "preset_mapping",
    "run_config",
    "run_mapping",
    "to_dict",
]
