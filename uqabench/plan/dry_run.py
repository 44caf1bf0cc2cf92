"""What an execution would do, without doing it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from uqabench.artifact import Artifact
from uqabench.errors import UQABenchError
from uqabench.plan import estimate
from uqabench.plan.node import Node, in_order
from uqabench.plan.progress import readable


def survey(targets: Iterable[Node], run: Path) -> list[dict[str, Any]]:
    """One row a node in the order of building: node, action ("reuse" or "build"), seconds, source of the estimate,
    folder. Nothing is written."""
    finished: dict[str, Artifact] = {}
    rows, begun = [], set[str]()
    for node in in_order(targets):
        artifact = _finished(node, run, finished)
        if artifact is not None:
            finished[node.key] = artifact
            action, seconds, source = "reuse", 0.0, ""
        else:
            seconds, recorded = estimate.seconds(node, run)
            if node.beside and node.beside in begun:  # the node before it does their work
                seconds = min(seconds, estimate.START)
            begun |= {node.beside}
            action, source = "build", "recorded" if recorded else "model"
        row = {"node": node.name, "action": action, "seconds": round(seconds, 1), "estimate": source}
        rows.append({**row, "folder": node.path(run).relative_to(run).as_posix()})
    return rows


def _finished(node: Node, run: Path, finished: dict[str, Artifact]) -> Artifact | None:
    if any(needed.key not in finished for needed in node.inputs.values()):
        return None  # what it reads would be built anew
    try:
        return node.open({role: finished[needed.key] for role, needed in node.inputs.items()}).finished(node.path(run))
    except UQABenchError:
        return None


def summary(rows: list[dict[str, Any]]) -> str:
    """One line: how much is there, how much is to do, and how long it will take."""
    to_do = [row for row in rows if row["action"] == "build"]
    seconds = sum(row["seconds"] for row in to_do)
    guessed = sum(row["estimate"] == "model" for row in to_do)
    text = f"{len(rows)} nodes: {len(rows) - len(to_do)} finished, {len(to_do)} to build, about {readable(seconds)}"
    return f"{text} ({guessed} of them by a model, not by recorded times)" if guessed else text
