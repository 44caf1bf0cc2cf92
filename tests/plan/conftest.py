"""Small real nodes: each writes one file with what it read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from uqabench.artifact import Artifact, Stage
from uqabench.plan.node import Node


@pytest.fixture
def node() -> Callable[..., Node]:
    """`node(label, inputs, fails=..., calls=...)`: its artefact is the label in front of its inputs' texts."""

    def make_node(
        label: str,
        inputs: Mapping[str, Node] | None = None,
        *,
        stage: str = "stage",
        fails: Exception | None = None,
        calls: list[str] | None = None,
        seconds: float = 0.0,
        beside: str = "",
    ) -> Node:
        def open_(made: Mapping[str, Artifact]) -> Stage:
            def make(out: Path, work: Path) -> float:
                if calls is not None:
                    calls.append(label)
                if fails is not None:
                    raise fails
                text = " ".join((artifact.path / "text").read_text() for artifact in made.values())
                (out / "text").write_text(f"{label}({text})")
                return seconds

            return Stage(stage, {"label": label}, {role: a.content for role, a in made.items()}, make)

        return Node(stage, label, {"label": label}, inputs or {}, open_, beside=beside)

    return make_node
