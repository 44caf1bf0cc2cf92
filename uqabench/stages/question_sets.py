"""Question sets as an artefact folder: one Arrow file a split and what was drawn and discarded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from uqabench.artifact import Stage
from uqabench.data.store import InteractionStore
from uqabench.files import write_json
from uqabench.questions.generate import generate
from uqabench.settings.questions import QuestionConfig
from uqabench.settings.reader import key_dict


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """numba's OpenMP layer sets the number of threads of the whole process. Left so, a run that has just generated its
    questions would train with other threads, and end in other last bits, than one that finds them finished."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def build_questions(store: InteractionStore, configs: dict[str, QuestionConfig], *, progress: bool = True) -> Stage:
    """Generate one question set a split ("train", "evaluation") into the artefact folder `out`; reuse it."""

    def make(folder: Path, work: Path) -> float:
        started = time.monotonic()
        report: dict[str, Any] = {}
        for split, config in configs.items():
            with torch_threads_kept():
                questions, facts = generate(store, split, config)
            questions.save(folder / f"{split}.arrow")
            report[split] = facts.as_dict()
        write_json(folder / "metrics.json", report)
        return time.monotonic() - started

    settings = {split: key_dict(config) for split, config in configs.items()}
    return Stage("questions", settings, {"data": store.content_hash}, make)
