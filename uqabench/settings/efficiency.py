"""Settings of the measurement of costs: what is timed, and what things are paid with."""

from __future__ import annotations

import math
from typing import Any

from uqabench.settings.schema import MAX_SEED, section, setting

SHAPES = ("qwen2.5-3b",)
PRICES = ("input", "output", "machine_hour")


@section("efficiency")
class EfficiencyConfig:
    """Measurement of what a method costs when the language model is asked."""

    prompts: int = setting(16, "prompts that are timed one by one", ge=1, le=100_000)
    batches: tuple[int, ...] = setting(
        (4, 16, 64), "questions a batch, each about another history", ge=1, le=65_536, size=(0, 16)
    )
    patience: float = setting(20.0, "seconds of a batch beyond which no larger one is tried", gt=0, le=1e6)
    tokenizer: str | None = setting(
        "qwen2.5-tokenizer", "a second tokenizer to count tokens by, where it is installed; null: none"
    )
    shape: str | None = setting(
        None,
        "time a model of this shape with random weights instead of the run's: its costs are real, its answers none",
        choices=SHAPES,
    )
    prices: dict[str, Any] = setting(
        default_factory=dict,
        help="what is paid: input and output for a million tokens, machine_hour for an hour of this machine",
    )
    seed: int = setting(0, "seed of the prompts that are timed", ge=0, le=MAX_SEED)

    def __post_init__(self) -> None:
        for name, price in self.prices.items():
            if name not in PRICES:
                raise ValueError(f"prices has no '{name}': choose among {', '.join(PRICES)}.")
            number = isinstance(price, (int, float)) and not isinstance(price, bool)
            if not number or not math.isfinite(price) or price < 0:
                raise ValueError(f"prices.{name} is {price!r}: give a number, at least 0.")
