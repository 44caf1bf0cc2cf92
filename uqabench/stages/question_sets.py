"""Question sets as an artefact folder: one Arrow file a split and what was drawn and discarded."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from uqabench.config import to_dict
from uqabench.data.store import InteractionStore
from uqabench.files import write_json
from uqabench.questions.config import QuestionConfig
from uqabench.questions.generate import generate
from uqabench.stages.artifact import Artifact, build


def build_questions(
    store: InteractionStore, out: Path, configs: dict[str, QuestionConfig], *, progress: bool = True
) -> tuple[Artifact, bool]:
    """Generate one question set a split ("train", "evaluation") into the artefact folder `out`; reuse it."""

    def make(folder: Path, work: Path) -> float:
        started = time.monotonic()
        report: dict[str, Any] = {}
        for split, config in configs.items():
            questions, facts = generate(store, split, config)
            questions.save(folder / f"{split}.arrow")
            report[split] = facts.as_dict()
        write_json(folder / "metrics.json", report)
        return time.monotonic() - started

    settings = {split: to_dict(config) for split, config in configs.items()}
    return build(out, "questions", settings, {"data": store.manifest["content_hash"]}, make)
