"""What a run's stages need of a GPU's memory, part by part, before anything is built."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from uqabench.encoders.registry import WIDTHS
from uqabench.errors import UQABenchError
from uqabench.integrations import find_integration
from uqabench.llm.footprint import Footprint, ModelSize
from uqabench.llm.shapes import empty_model
from uqabench.plan.methods import Method
from uqabench.settings.stages import AlignConfig
from uqabench.stages.align import trains_language_model

CARDS = {"80 GB card": 80e9, "141 GB card": 141e9}
PROMPT_TOKENS = 133
"""Tokens of a question with one soft token (the paper's Table 7): how many answers a pass has."""
LARGE = 1e9
"""Parameters from which the memory of a language model is worth a look on a CPU too."""

NOTE = (
    "GB of one GPU's memory for a pass of align.token_budget or evaluate.token_budget tokens, counted from the shape "
    "of the language model.\nAttention masks, the allocator's rounding and the driver come on top."
)


def memory_needs(methods: Iterable[Method]) -> list[dict[str, Any]]:
    """A row for each way in which methods are aligned to the language model and asked: stage, a method, parts in GB,
    their sum, and for each card how much of it is left, or which setting makes the pass fit.

    Empty where the shape of the language model is not known here, or where it is small and runs on the CPU.
    """
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    sizes: dict[str, ModelSize | None] = {}
    for method in methods:
        llm = method.config.llm
        if not method.is_prompted:
            continue
        if llm.name not in sizes:
            sizes[llm.name] = _size(llm.name)
        size = sizes[llm.name]
        if size is None or (method.config.device == "cpu" and size.parameters < LARGE):
            continue
        for needed in _needed(method, size):
            row = {"stage": needed.stage, "such as": method.name, **_parts(needed.bytes), **_cards(needed)}
            rows.setdefault(tuple(value for name, value in row.items() if name != "such as"), row)
    return list(rows.values())


@dataclass(frozen=True)
class _Needed:
    """What a stage needs for a pass of `budget` tokens, which `setting` sets; sparing: with align.recompute, where it
    is off and would help."""

    stage: str
    setting: str
    budget: int
    bytes: Footprint
    sparing: Footprint | None = None


def _size(name: str) -> ModelSize | None:
    if name in ("demo", "train"):
        return None
    try:
        model = empty_model(name)
        return None if model is None else ModelSize.of(model)
    except (UQABenchError, AttributeError):  # no transformers, a damaged folder, or a config with other names
        return None


def _needed(method: Method, size: ModelSize) -> list[_Needed]:
    align, evaluate, dtype = method.config.align, method.config.evaluate, method.config.llm.dtype
    strategy = _strategy(align, has_states=method.has_vectors)
    rank = align.lora_rank if strategy == "lora" else 0
    found = []
    if strategy:
        answers = 2 * min(align.batch_questions, max(1, align.token_budget // PROMPT_TOKENS))  # a letter, and the end
        count = partial(
            size.aligned, strategy, dtype, align.token_budget, answers, adapter=_adapter(method, size), rank=rank
        )
        sparing = None if align.recompute else count(recompute=True)
        stage = f"align, {_TRAINS[strategy]}"
        found.append(
            _Needed(stage, "align.token_budget", align.token_budget, count(recompute=align.recompute), sparing)
        )
    asked = size.asked(dtype, evaluate.token_budget, max(1, evaluate.token_budget // PROMPT_TOKENS), rank=rank)
    return [*found, _Needed("evaluate", "evaluate.token_budget", evaluate.token_budget, asked)]


_TRAINS = {"full": "full fine-tuning", "lora": "LoRA", "adapter": "adapter alone"}


def _strategy(align: AlignConfig, *, has_states: bool) -> str:
    """What trains of a method: "full", "lora", "adapter", or nothing."""
    if not align.train:
        return ""
    return "full" if trains_language_model(align, has_states=has_states) else align.strategy


def _adapter(method: Method, size: ModelSize) -> int:
    """Parameters of the adapter, where the method has one and its encoder's width is known."""
    encoder = method.config.pretrain.encoder
    width = encoder.overrides.get("width", WIDTHS.get(encoder.preset))
    if not method.has_vectors or not isinstance(width, int):
        return 0
    with torch.device("meta"):
        adapter = find_integration(method.config.align.integration).build(width, size.width, 1.0, method.config.align)
    return sum(parameter.numel() for parameter in adapter.parameters())


def _parts(needed: Footprint) -> dict[str, float]:
    names = ("weights", "copies", "gradients", "moments", "activations", "logits", "total")
    return {f"{name} GB" if name == "total" else name: round(getattr(needed, name) / 1e9, 2) for name in names}


def _cards(needed: _Needed) -> dict[str, str]:
    return {card: _fit(needed, room) for card, room in CARDS.items()}


def _fit(needed: _Needed, room: float) -> str:
    if needed.bytes.total <= room:
        return f"{(room - needed.bytes.total) / 1e9:.1f} GB left"
    ways = []
    if needed.bytes.fixed < room:
        most = int((room - needed.bytes.fixed) * needed.budget / needed.bytes.activations)
        ways.append(f"{needed.setting}={most}")
    if needed.sparing is not None and needed.sparing.total <= room:
        ways.append("align.recompute=true")
    return " or ".join(ways) or "too small"
