"""Asking and aligning a small language model: the ways of laying out prompts that share their beginnings.

The prompts are those of a text history of fifty items with eight questions, by the demo's tokenizer, and the model is
the demo's. `python -m bench.evaluation` measures the same on a run's own questions.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources

import numpy as np
import pytest
import torch

from bench.evaluation import published_letters, shared_letters
from uqabench.llm.batches import PromptGroup, answer_loss, batch_hidden, collate, group_prompts
from uqabench.llm.language_model import LanguageModel
from uqabench.llm.sources import load_language_model

HISTORIES, QUESTIONS, PREFIX, REST = 4, 8, 243, 20
DEMO = str(resources.files("uqabench") / "assets" / "demo-lm")


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    torch.set_num_threads(1)
    return LanguageModel.load(DEMO)


@pytest.fixture(scope="module")
def prompts() -> list[np.ndarray]:
    rng = np.random.Generator(np.random.Philox(key=[0, 0]))
    heads = [rng.integers(300, 8000, PREFIX) for _ in range(HISTORIES)]
    return [np.concatenate([head, rng.integers(300, 8000, REST)]) for head in heads for _ in range(QUESTIONS)]


@pytest.fixture(scope="module")
def groups(prompts: list[np.ndarray]) -> list[PromptGroup]:
    rows = np.arange(len(prompts))
    return group_prompts(prompts, rows // QUESTIONS, rows % 4, rows)


@pytest.mark.parametrize("way", ["shared", "published-1", "published-16"])
def test_evaluation(benchmark: Callable, lm: LanguageModel, prompts: list, groups: list, way: str):
    with torch.no_grad():
        if way == "shared":
            benchmark(lambda: shared_letters(lm, None, groups, 16_384, len(prompts)))
            return
        model, _ = load_language_model(DEMO)
        embeds = [lm.embed(torch.from_numpy(prompt)) for prompt in prompts]
        benchmark(lambda: published_letters(model, embeds, lm.letter_ids, int(way.partition("-")[2])))


@pytest.mark.parametrize("way", ["packed", "padded", "padded-by-torch"])
def test_alignment_step(benchmark: Callable, lm: LanguageModel, groups: list, way: str):
    """Forward and backward of one step's part; by torch: with torch's own linear layers, masks over whole rows."""
    asked = lm
    if way == "padded-by-torch":
        model, tokenizer = load_language_model(DEMO)
        asked = LanguageModel("demo", model, tokenizer)
    batch = collate(groups, asked, 0, with_answers=True, packed=way == "packed")
    asked.model.requires_grad_(True)

    def step() -> None:
        asked.model.zero_grad(set_to_none=True)
        answer_loss(asked, batch, batch_hidden(asked, batch, None)).backward()

    benchmark(step)
