"""What each method costs and what it scores: rows, tables in every format, and Pareto plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uqabench.files import write_bytes
from uqabench.report.model import Cell, Column, Section, Table
from uqabench.report.paper import paper_table
from uqabench.report.pareto import can_draw, plot_pareto
from uqabench.report.render import FORMATS
from uqabench.vocabulary import GROUPS, display_name, group

ANSWER_TOKENS = 1
"""Tokens that an answer has: the letter."""
QUESTIONS_A_USER = (1, 10, 100)
"""How many questions a user's embedding is asked about before it is made anew."""

_PLOTS = (
    ("pareto-tokens", "tokens", "Prompt tokens, mean", 1.0),
    ("pareto-latency", "first_token_seconds", "Time to first token, ms", 1e3),
    ("pareto-memory", "peak_bytes", "Peak memory of a prompt, MB", 1e-6),
)


def efficiency_rows(
    results: Mapping[str, Any], costs: Mapping[int, Mapping[str, Any]], prices: Mapping[str, float]
) -> list[dict[str, Any]]:
    """A row a cell that was measured, by `efficiency.json`'s names.

    results: of an experiment. costs: costs.json by cell. prices: input and output for a million tokens, machine_hour.
    Accuracy is in percent; where a cell was not evaluated it and what follows from it is None.
    """
    overall = {row["cell"]: row for row in results["rows"] if row["scope"] == "overall"}
    return [
        _row(results["cells"][index], overall.get(index), measured, prices, results["llm"])
        for index, measured in sorted(costs.items())
    ]


def _row(
    cell: Mapping[str, Any],
    score: Mapping[str, Any] | None,
    costs: Mapping[str, Any],
    prices: Mapping[str, float],
    llm: str,
) -> dict[str, Any]:
    tokens = costs["tokens"]
    rates = costs["questions_per_second"]
    accuracy = score["accuracy"] if score else None
    best = rates[str(costs["best_batch"])]
    other = tokens["other"] or {}
    row = {
        "method": cell["method"],
        "label": cell["label"],
        "axes": cell["axes"],
        "seed": cell["seed"],
        "accuracy": accuracy,
        "ci95": score["ci95"] if score else None,
        "tokens": tokens["input"]["mean"],
        "tokens_p95": tokens["input"]["p95"],
        "other_tokenizer": other.get("tokenizer"),
        "other_tokens": other.get("mean"),
        "other_tokens_p95": other.get("p95"),
        "soft_tokens": tokens["soft"],
        "shared_by_users": tokens["shared_by_users"],
        "shared_by_questions": tokens["shared_by_questions"],
        "computed_tokens": tokens.get("computed"),
        "first_token_seconds": costs["first_token_seconds"]["median"],
        "first_token_seconds_p95": costs["first_token_seconds"]["p95"],
        "questions_per_second": rates["1"],
        "questions_per_second_best": best,
        "best_batch": costs["best_batch"],
        "evaluation_questions_per_second": costs.get("evaluation_questions_per_second"),
        "peak_bytes": costs["peak_bytes"],
        "peak_bytes_best_batch": costs["peak_bytes_best_batch"],
        "weight_bytes": costs["model"]["weight_bytes"],
        "prompt_flops": costs["prompt_flops"],
        "cache_bytes": costs["cache_bytes"],
        "accuracy_per_thousand_tokens": None if accuracy is None else 1e3 * accuracy / tokens["input"]["mean"],
        "encoder_seconds": costs.get("encoder", {}).get("seconds"),
        "encoder_parameters": costs.get("encoder", {}).get("parameters"),
        "cost_per_million": _price(tokens["input"]["mean"], best, prices),
        "model": {**costs["model"], "name": costs["model"]["name"] or llm},
        "machine": costs["machine"],
    }
    for n in QUESTIONS_A_USER:
        row[f"seconds_at_{n}_questions_a_user"] = 1 / rates["1"] + (row["encoder_seconds"] or 0.0) / n
    return row


def _price(tokens: float, rate: float, prices: Mapping[str, float]) -> float | None:
    """What a million questions cost; None without prices."""
    if not prices:
        return None
    by_tokens = tokens * prices.get("input", 0.0) + ANSWER_TOKENS * prices.get("output", 0.0)
    return by_tokens + 1e6 / rate / 3600 * prices.get("machine_hour", 0.0)


def write_efficiency(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write efficiency.txt, .md, .tex and .csv and, where matplotlib is installed, the Pareto plots; returns paths."""
    if not rows:
        return []
    table = efficiency_table(rows)
    paths = []
    for suffix, render in FORMATS.items():
        paths.append(folder / f"efficiency.{suffix}")
        write_bytes(paths[-1], render(table).encode())
    scored = [row for row in rows if row["accuracy"] is not None]
    for name, key, axis, factor in _PLOTS if can_draw() else ():
        points = [
            (row["label"], group(row["method"]), row[key] * factor, row["accuracy"], row["ci95"])
            for row in scored
            if row[key]
        ]
        if points:
            paths.append(plot_pareto(points, axis, folder / f"{name}.png"))
    return paths


def efficiency_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The table of `rows`, with the paper's Table 7 below."""
    columns = [
        Column("Method"),
        Column("Accuracy", fixed=True),
        Column("Tokens", decimals=0),
        Column("p95", alone="Tokens p95", decimals=0),
        Column("Soft", alone="Soft tokens", decimals=0),
        Column("TTFT ms", decimals=1),
        Column("q/s", alone="Questions/s, batch 1", decimals=1),
        Column("q/s best", alone="Questions/s, best batch", decimals=1),
        Column("MB", alone="Peak MB", decimals=2),
        Column("GFLOP", alone="Prompt GFLOP", decimals=3),
        Column("KV kB", decimals=0),
        Column("Acc/1k", alone="Accuracy per 1,000 tokens", decimals=1),
    ]
    priced = any(row["cost_per_million"] is not None for row in rows)
    if priced:
        columns.append(Column("Cost/M", alone="Cost per million questions", decimals=2))
    sections = []
    for title in GROUPS:
        of_group = [row for row in rows if group(row["method"]) == title]
        if of_group:
            sections.append(Section(title, [_cells(row, priced) for row in of_group]))
    sections.append(
        Section("The paper's Table 7 (Qwen2.5-3B-Instruct)", [_paper_cells(len(columns), *each) for each in _paper()])
    )
    records = [{k: v for k, v in row.items() if k not in ("model", "machine", "axes")} for row in rows]
    return Table("efficiency", columns, sections, records, _notes(rows), width=130)


def _cells(row: Mapping[str, Any], priced: bool) -> list[Cell]:
    values = [
        row["tokens"],
        row["tokens_p95"],
        row["soft_tokens"],
        row["first_token_seconds"] * 1e3,
        row["questions_per_second"],
        row["questions_per_second_best"],
        None if row["peak_bytes"] is None else row["peak_bytes"] / 1e6,
        row["prompt_flops"] / 1e9,
        row["cache_bytes"] / 1e3,
        row["accuracy_per_thousand_tokens"],
    ]
    if priced:
        values.append(row["cost_per_million"])
    interval = tuple(row["ci95"]) if row["ci95"] else None
    return [Cell(row["label"]), Cell(row["accuracy"], interval), *map(Cell, values)]


def _paper() -> list[tuple[str, float, float | None]]:
    """Name, accuracy and tokens of each row of the paper's Table 7."""
    found = []
    for cell in paper_table("table7").cells:
        settings = ", ".join(sorted(min(spellings, key=len) for spellings in cell.settings))
        name = display_name(cell.method)
        found.append((f"{name}, {settings}" if settings else name, cell.scores["overall"], cell.tokens))
    return found


def _paper_cells(width: int, name: str, accuracy: float, tokens: float | None) -> list[Cell]:
    per_thousand = None if tokens is None else 1e3 * accuracy / tokens
    cells = [Cell(name), Cell(accuracy), Cell(tokens), *[Cell(None)] * (width - 3)]
    cells[11] = Cell(per_thousand)
    return cells


def _notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    machine, model = rows[0]["machine"], rows[0]["model"]
    notes = [
        "Accuracy in percent over all questions; its interval is 95 %, over users. Tokens are a whole prompt's, soft "
        "tokens included. TTFT: from stored encoder states to the answer's logits, median at batch 1. MB: memory of a "
        "prompt beyond the weights.",
        f"Timed on {machine['name']}, {machine['threads']} threads, load {machine['load'] or 0:.1f}; the model "
        f"{model['name']} has {model['parameters']:,} parameters in {model['dtype']}.",
    ]
    if model["random_weights"]:
        notes.append(
            "Tokens, times and memory are those of a model with random weights; accuracy is the run's own model's."
        )
    other = next((row["other_tokenizer"] for row in rows if row["other_tokenizer"]), None)
    if other:
        counts = ", ".join(f"{row['label']} {row['other_tokens']:,.0f}" for row in rows if row["other_tokens"])
        notes.append(f"Tokens by {other}: {counts}.")
    encoders = [row for row in rows if row["encoder_seconds"]]
    if encoders:
        costs = ", ".join(f"{row['label']} {row['encoder_seconds'] * 1e3:.2f}" for row in encoders)
        notes.append(f"Encoding a history once, in ms, to be shared by all questions about it: {costs}.")
    return notes
