"""Every method's answers as columns: the letter a question, and where the method has logits the probabilities."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import numpy as np

from uqabench.errors import InputError
from uqabench.questions.calibration import probabilities
from uqabench.questions.scoring import read_predictions
from uqabench.report.found import Found, SeedAnswers, Stages
from uqabench.report.page.columns import Columns
from uqabench.report.page.questions import Asked
from uqabench.report.rows import ScoreRow
from uqabench.vocabulary import LETTERS, RIVALS

NOT_ASKED, NO_LETTER = 255, 254
"""Codes beside 0..3 in a column of answers."""
_MANY = 1_000_000  # probabilities of so many answers are kept in a byte, of fewer in two


def answered(found: Found, stages: Stages, asked: Asked, columns: Columns) -> list[dict[str, Any]]:
    """The header's part about rows, in the order of the table. All question sets that they rest upon join `asked`."""
    read = [[_read(each, stages, asked) for each in answers] for answers in found.answers]
    cells = asked.total * sum(map(len, read))
    scale = 255 if cells > _MANY else 65_535
    rows = []
    for row, answers, of_row in zip(found.rows, found.answers, read, strict=True):
        seeds = []
        for each, (first, letters, logits) in zip(answers, of_row, strict=True):
            column = np.full(asked.total, NOT_ASKED)
            column[first : first + len(letters)] = letters
            seed: dict[str, Any] = {"seed": each.seed, "answers": columns.add(column)}
            if logits is not None:
                kept = np.rint(probabilities(logits) * scale).astype(np.int64)
                seed |= {"first": first, "scale": scale, "probabilities": columns.add(kept)}
            seeds.append(seed)
        rows.append({**_facts(row), **_costs(found, row), "seeds": seeds})
    return rows


def _read(each: SeedAnswers, stages: Stages, asked: Asked) -> tuple[int, np.ndarray, np.ndarray | None]:
    """Where the answered questions begin, the letters (Q,) as codes, and the logits (Q, 4) or None."""
    first, questions = asked.first(stages.inputs(each.folder))
    n = len(questions)
    predictions = sorted(read_predictions(each.predictions), key=lambda row: row["id"])
    if [row["id"] for row in predictions] != list(range(n)):
        raise InputError(f"{each.predictions} does not answer each of its {n} questions once: evaluate it again.")
    if not np.array_equal([LETTERS.index(row["answer"]) for row in predictions], questions.answer):
        raise InputError(f"{each.predictions} has other right answers than its questions: evaluate it again.")
    letters = np.array([LETTERS.index(p) if (p := row["prediction"]) in LETTERS else NO_LETTER for row in predictions])
    with_logits = all("logits" in row for row in predictions)
    return first, letters, np.array([row["logits"] for row in predictions]) if with_logits else None


def _costs(found: Found, row: ScoreRow) -> dict[str, Any]:
    """What the row costs where that was measured: time to first token in ms, and peak memory of a prompt in MB."""
    measured = [
        costs
        for costs in found.costs
        if (costs["method"], costs["label"], costs["axes"]) == (row.method, row.label, row.axes)
    ]
    if not measured:
        return {}
    latency, memory = (fmean(costs[key] for costs in measured) for key in ("first_token_seconds", "peak_bytes"))
    return {"latency": 1e3 * latency, "memory": memory / 1e6}


def _facts(row: ScoreRow) -> dict[str, Any]:
    """What a page says of a row beside its answers."""
    return {
        "name": row.name,
        "method": row.method,
        "label": row.label,
        "axes": row.axes,
        "group": row.group,
        "rival": row.group != "Baselines" or row.method in RIVALS,
        "status": row.status,
        "failures": list(row.failures),
        "tokens": row.avg_tokens,
        "modelSize": row.sizes.get("model_size"),
        "seconds": {stage: value for stage, value in row.seconds.items() if value},
        "best": sorted(row.best),
    }
