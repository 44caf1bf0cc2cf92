"""Training curves: what the stages' logs say, a series a quantity."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uqabench.report.found import Found, Stages

MOST_POINTS = 300
"""Of one series: more than a screen has places for."""
_STAGES = {"pretrain": "Pre-training", "align": "Alignment", "lm": "Language model"}


def curves(found: Found, stages: Stages) -> list[dict[str, Any]]:
    """Series of all training that the rows rest upon: {"stage", "series", "metric", "step", "value"}."""
    result = []
    for stage, name, folder in _trainings(found, stages):
        for metric, points in _read(folder / "log.jsonl").items():
            if len(points) > 1:
                kept = points[:: -(-len(points) // MOST_POINTS)]
                steps, values = zip(*kept, strict=True)
                series = {"stage": _STAGES[stage], "series": name, "metric": metric}
                result.append({**series, "step": list(steps), "value": list(values)})
    return result


def _trainings(found: Found, stages: Stages) -> Iterator[tuple[str, str, Path]]:
    """(stage, name, folder) of every training, each once, however many rows rest upon it."""
    seen: set[Path] = set()

    def new(stage: str, content: str | None, name: str) -> Iterator[tuple[str, str, Path]]:
        folder = stages.of(stage, content)
        if folder is not None and folder not in seen:
            seen.add(folder)
            yield stage, name, folder

    for row, answers in zip(found.rows, found.answers, strict=True):
        for each in answers:
            name = row.name if len(answers) < 2 else f"{row.name}, seed {each.seed}"
            inputs = stages.inputs(each.folder)
            states = stages.of("states", inputs.get("states"))
            if states is not None:
                yield from new("pretrain", stages.inputs(states).get("pretrain"), name)
            yield from new("align", inputs.get("align"), name)
            yield from new("lm", inputs.get("llm"), "small model")


def _read(log: Path) -> dict[str, list[tuple[int, float]]]:
    """Points (step, value) by metric of a training log; what no step is said of stands in no curve."""
    found: dict[str, list[tuple[int, float]]] = {}
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    step = 0
    for line in lines:
        record = json.loads(line)
        # Metrics of an epoch's end follow the record that says at which step it ended.
        step = record.get("step", step)
        for name, value in record.items():
            if name not in ("step", "epoch") and isinstance(value, (int, float)) and not isinstance(value, bool):
                found.setdefault(name, []).append((step, round(float(value), 6)))
    return found
