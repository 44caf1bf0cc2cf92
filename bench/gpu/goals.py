"""What the measurements are judged by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

INTERACTIONS, EPOCHS = 31_000_000, 10
"""The paper's log, and its pre-training."""
ALIGNED, ALIGN_EPOCHS, ASKED = 30_000, 3, 7_192
"""Questions that align (paper, appendix), how often, and those that evaluate."""
STEP_TOKENS = 65_536
MINUTES = 30.0
PROJECTED = "hstu"
PIPELINE = "pipeline step, hstu, V=994447"
TABLE_BYTES = 7 * 4 + (4 + 2) + (2 + 4) + 3 * 4
"""A weight of the item table and step: AdamW reads four and writes three floats; the copy in bf16; its gradient made
fp32; the gradient's norm, and its scaling."""
LOSS = "linear_cross_entropy T=8192, V=994447 fwd+bwd"


@dataclass(frozen=True)
class Goal:
    """`least` percent of the measured ceiling (tensor cores) or copy bandwidth in every row that is named in `rows`.

    predicted: what is expected of an H100 instead, where the kernels' own counts put the goal out of reach.
    """

    name: str
    least: float
    rows: tuple[str, ...]
    predicted: str = ""


GOALS = (
    Goal(
        "HSTU attention fwd, d 128 and 256", 60, tuple(f"hstu_attention d={d}, uniform to 2048 fwd" for d in (128, 256))
    ),
    Goal(
        "HSTU attention fwd+bwd, d 128 and 256",
        45,
        tuple(f"hstu_attention d={d}, uniform to 2048 fwd+bwd" for d in (128, 256)),
    ),
    Goal("HSTU training step", 40, ("hstu training step, uniform to 512",)),
    Goal("Trm++ training step", 45, ("trm++ training step, uniform to 512",)),
    Goal(
        "selective scan fwd+bwd",
        70,
        ("selective_scan 1024 channels, state 32, uniform to 512 fwd+bwd",),
        "at most 15 %, bound by instructions; 36 % by its exponentials alone",
    ),
    Goal("RMSNorm", 85, tuple(f"rms_norm width 512 {way}" for way in ("fwd", "fwd+bwd"))),
    Goal("RoPE", 85, tuple(f"rope 4 heads of 128 {way}" for way in ("fwd", "fwd+bwd"))),
    Goal("SwiGLU", 85, tuple(f"swiglu width 1536 {way}" for way in ("fwd", "fwd+bwd"))),
    Goal(
        "linear cross entropy fwd+bwd, V 994,447",
        60,
        (LOSS,),
        "47 to 56 %, with four products where the goal counts three",
    ),
)


@dataclass(frozen=True)
class Verdict:
    """passed: None where a row that the goal needs was not measured."""

    goal: str
    passed: bool | None
    text: str

    def to_row(self) -> dict[str, Any]:
        return {"goal": self.goal, "passed": self.passed, "text": self.text}


def percent(row: Mapping[str, Any], ceilings: Mapping[str, float]) -> float | None:
    """A row's rate in percent of the measured ceiling of its unit; None where either is missing."""
    ceiling = ceilings.get(row["unit"])
    return 100 * row["rate"] / ceiling if ceiling and row.get("rate") else None


def judge(rows: Mapping[str, Mapping[str, Any]], ceilings: Mapping[str, float]) -> Iterator[Verdict]:
    """One verdict a goal: the lowest of its rows decides, and none may disagree with the fp32 reference."""
    for goal in GOALS:
        predicted = f"; predicted: {goal.predicted}" if goal.predicted else ""
        found = [rows[name] for name in goal.rows if name in rows]
        figures = [percent(row, ceilings) for row in found]
        if len(found) < len(goal.rows) or any(figure is None for figure in figures):
            missing = [name for name in goal.rows if name not in rows] or ["the ceilings"]
            yield Verdict(goal.name, None, f"not measured: {missing[0]}{predicted}")
            continue
        worst = min(figure for figure in figures if figure is not None)
        wrong = [row["name"] for row in found if row.get("agrees") is False]
        ran = ", ".join(sorted({row["backend"] for row in found}))
        text = f"{worst:.1f} % of {goal.least:.0f} % ({ran}){predicted}"
        text += f"; wrong results: {wrong[0]}" if wrong else ""
        yield Verdict(goal.name, worst >= goal.least and not wrong, text)
    yield end_to_end(rows)


def end_to_end(rows: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """The paper's run of one encoder, projected from measured steps.

    Pre-training is the pipeline's own step where that was measured. Else every interaction passes through the encoder's
    step and the loss over the catalogue, and each step of 65,536 tokens moves the item table, its bf16 copy, its
    gradients in either dtype and its moments (`TABLE_BYTES` at the copy bandwidth).
    Then the adapter's alignment and the evaluation, one prompt of 144 tokens a question.
    """
    name = f"paper end to end, {PROJECTED}"
    steps = {
        "encoder": f"{PROJECTED} training step, uniform to 512",
        "loss": LOSS,
        "align": "3 B model, adapter alignment step",
        "ask": "3 B model, evaluation step",
    }
    if rows.get(PIPELINE, {}).get("seconds"):
        steps = {"pre-training": PIPELINE, "align": steps["align"], "ask": steps["ask"]}
    for step in steps.values():
        if not rows.get(step, {}).get("seconds"):
            return Verdict(name, None, f"not measured: {step}")
    a_token = {key: rows[step]["seconds"] / rows[step]["tokens"] for key, step in steps.items()}
    tokens = INTERACTIONS * EPOCHS
    if "pre-training" in steps:
        parts = {"pre-training": tokens * a_token["pre-training"]}
    else:
        bandwidth = rows[steps["encoder"]].get("bandwidth") or 2.5e12
        tables = tokens / STEP_TOKENS * TABLE_BYTES * 994_447 * 128 / bandwidth
        parts = {
            "encoder": tokens * a_token["encoder"],
            "loss": tokens * a_token["loss"],
            "item table": tables,
        }
    parts |= {
        "alignment": ALIGNED * ALIGN_EPOCHS * 144 * a_token["align"],
        "evaluation": ASKED * 144 * a_token["ask"],
    }
    minutes = sum(parts.values()) / 60
    told = ", ".join(f"{part} {seconds / 60:.1f}" for part, seconds in parts.items())
    return Verdict(name, minutes <= MINUTES, f"{minutes:.1f} minutes of {MINUTES:.0f} ({told})")


def judged_rows() -> list[str]:
    """The rows that a verdict needs, each once."""
    projected = (PIPELINE, "3 B model, adapter alignment step", "3 B model, evaluation step")
    return list(dict.fromkeys([*(name for goal in GOALS for name in goal.rows), *projected]))
