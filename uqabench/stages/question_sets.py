"""Question sets as an artefact folder: one Arrow file a split and what was drawn and discarded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from uqabench.artifact import Stage
from uqabench.data.official import GIVEN_FILES
from uqabench.data.store import InteractionStore
from uqabench.files import sha256_file, write_json
from uqabench.questions.generate import generate
from uqabench.questions.given import given_questions
from uqabench.settings.questions import QuestionConfig
from uqabench.settings.reader import key_dict
from uqabench.vocabulary import GIVEN_QUESTIONS


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
    """One question set a split ("train", "evaluation") in the artefact folder `out`, generated or (version "official")
    taken from the store; reuse it."""

    def make(folder: Path, work: Path) -> float:
        started = time.monotonic()
        report: dict[str, Any] = {}
        for split, config in configs.items():
            with torch_threads_kept():
                if config.version == GIVEN_QUESTIONS:
                    questions, report[split] = given_questions(store, split, config.history)
                else:
                    questions, facts = generate(store, split, config)
                    report[split] = facts.as_dict()
            questions.save(folder / f"{split}.arrow")
        write_json(folder / "metrics.json", report)
        return time.monotonic() - started

    settings = {split: key_dict(config) for split, config in configs.items()}
    inputs = {"data": store.content_hash}
    for split, config in configs.items():
        if config.version == GIVEN_QUESTIONS and store.path is not None and (store.path / GIVEN_FILES[split]).is_file():
            inputs[f"given {split}"] = sha256_file(store.path / GIVEN_FILES[split])
    return Stage("questions", settings, inputs, make)
