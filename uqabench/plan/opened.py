"""Artefacts as objects, opened once a process however many nodes read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from uqabench.artifact import Artifact
from uqabench.data import InteractionStore
from uqabench.files import hash_json
from uqabench.questions.questions import QuestionSet
from uqabench.questions.templates import Templates
from uqabench.stages.align import Context


class Opened:
    """Stores, question sets, templates and contexts that nodes of one execution share."""

    def __init__(self) -> None:
        self._stores: dict[tuple[Path, str], InteractionStore] = {}
        self._questions: dict[tuple[Path, str, str], QuestionSet] = {}
        self._templates: dict[str | None, Templates] = {}
        self._contexts: dict[str, Context] = {}

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *error: object) -> None:
        """Let go of what is mapped, whoever still holds the nodes: a failed run's traceback does."""
        self._stores.clear()
        self._questions.clear()
        self._contexts.clear()

    def store(self, data: Artifact) -> InteractionStore:
        key = data.path, data.content
        if key not in self._stores:
            self._stores[key] = InteractionStore.of(data)
        return self._stores[key]

    def questions(self, artifact: Artifact, split: str) -> QuestionSet:
        key = artifact.path, artifact.content, split
        if key not in self._questions:
            self._questions[key] = QuestionSet.open(artifact.path / f"{split}.arrow")
        return self._questions[key]

    def context(self, told: dict[str, Any], make: Callable[[], Context]) -> Context:
        """What `make` makes of what is told as JSON values: once, so that what it reads and encodes serves all."""
        key = hash_json(told)
        if key not in self._contexts:
            self._contexts[key] = make()
        return self._contexts[key]

    def templates(self, path: str | None) -> Templates:
        """A user's own file is read once a process: all stages of an execution ask in the same words."""
        if path not in self._templates:
            self._templates[path] = Templates.load(path)
        return self._templates[path]
