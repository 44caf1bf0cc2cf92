"""A node of a plan: one artefact to be built, from its settings and from other nodes' artefacts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from uqabench.artifact import Artifact, Stage
from uqabench.files import hash_json

Open = Callable[[Mapping[str, Artifact]], Stage]
"""Artefacts of a node's inputs by role → the stage to build. Called when it is the node's turn."""


@dataclass(frozen=True, eq=False)
class Node:
    """One artefact of a run folder.

    stage: which stage builds it, and the folder it lies in. label: its readable name there, told by its settings alone.
    title: what messages call it. settings: everything, beside the inputs, that decides its content, as JSON values.
    inputs: the nodes whose artefacts it reads, by role. open: how to build it. facts: a finished artefact in a few
    words. beside: nodes with equal inputs that name the same are built one after another, as the first of them does
    work for all.

    Making a node reads and writes nothing; two nodes with equal keys are the same artefact.
    """

    stage: str
    label: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Node]
    open: Open
    title: str = ""
    facts: Callable[[Artifact], str] = field(default=lambda artifact: f"{artifact.seconds:.0f} s")
    beside: str = ""

    @cached_property
    def key(self) -> str:
        """Identity by content: stage, settings and the keys of the inputs."""
        inputs = {role: node.key for role, node in self.inputs.items()}
        return hash_json({"stage": self.stage, "settings": dict(self.settings), "inputs": inputs})

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.stage} {self.title or self.label}".strip()

    def path(self, run: Path) -> Path:
        """Its folder in the run folder `run`."""
        readable = re.sub(r"[^\w.+@-]+", "-", self.label)[:60].strip("-.")
        return run / self.stage / (f"{readable}-{self.key[:8]}" if readable else self.key[:8])


def in_order(targets: Iterable[Node]) -> list[Node]:
    """The targets and all that they need, each once and after its inputs, beside those that it names."""
    ordered: dict[str, Node] = {}

    def visit(node: Node) -> None:
        if node.key not in ordered:
            for needed in node.inputs.values():
                visit(needed)
            ordered[node.key] = node

    for target in targets:
        visit(target)
    groups: dict[str, list[Node]] = {}
    for node in ordered.values():
        groups.setdefault(node.beside or node.key, []).append(node)
    return [node for group in groups.values() for node in group]
