"""uqabench: how well does a user embedding tell an LLM who the user is, and at what cost?

`from uqabench import NAME` gives the names of `__all__`; each is imported from its module when it is first asked for,
so that `import uqabench` needs neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "uqabench.data": (
        "Catalogue",
        "InteractionStore",
        "PackedBatch",
        "describe",
        "open_source",
        "pack",
        "plan_batches",
        "prepare",
        "windows",
    ),
    "uqabench.encoders": ("ItemTower", "UserEncoder", "build_encoder", "encoder_names"),
    "uqabench.errors": ("InputError", "MissingExtra", "RunError", "UQABenchError"),
    "uqabench.experiments.run": ("run",),
    "uqabench.integrations": ("Integration", "integration_names"),
    "uqabench.kernels": ("use_backend",),
    "uqabench.llm.language_model": ("LanguageModel",),
    "uqabench.questions.generate": ("generate",),
    "uqabench.questions.questions": ("QuestionSet",),
    "uqabench.questions.render": ("render",),
    "uqabench.questions.scoring": ("compare", "read_predictions", "score"),
    "uqabench.questions.templates": ("Templates",),
    "uqabench.report": (
        "experiment_table",
        "load_experiment",
        "load_results",
        "main_table",
        "write_experiment",
        "write_tables",
    ),
    "uqabench.settings": ("PrepareConfig", "QuestionConfig", "RunConfig", "UserEncoderConfig", "run_config"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'uqabench' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
