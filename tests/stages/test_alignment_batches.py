"""An alignment step's host work: what it asks of the device, and how its questions come to it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from uqabench.settings import AlignConfig, OptimConfig
from uqabench.stages import alignment_batches
from uqabench.stages.align import PromptedMethod, SoftPrompts, prompt_groups, step_groups, trains_language_model
from uqabench.stages.alignment_batches import AlignmentBatches
from uqabench.stages.copies import apart, joined
from uqabench.stages.training import Trainer, seed_everything

from .host_reads import as_on_a_gpu, assert_a_step_asks_for_nothing  # noqa: F401

SHOWN = [("adapter", "mean-pooling"), ("adapter", "q-former"), ("full", "mean-pooling"), ("full", None)]


def alignment(context, method, folder, strategy, integration):
    """A trainer of 60 steps at most, the batches that it takes, and the steps of an epoch."""
    seed_everything(0, torch.device("cpu"))
    optim = OptimConfig(lr=2e-3, epochs=3, checkpoint_seconds=1e9)
    config = AlignConfig(
        batch_questions=12, token_budget=512, strategy=strategy, n_queries=2, optim=optim,
        integration=integration or "mean-pooling",
    )  # fmt: skip
    lm = context.load_lm()
    lm.layout = replace(lm.layout, packed=False)  # as on a GPU
    shown = PromptedMethod("text6", 6) if integration is None else method(integration)
    soft = None if shown.states is None else SoftPrompts(shown.states, config, lm)
    is_full = trains_language_model(config, has_states=soft is not None)
    lm.model.requires_grad_(is_full)
    modules = ({"llm": lm.model} if is_full else {}) | ({} if soft is None else {"adapter": soft.adapter})
    made = AlignmentBatches(lm, soft, config)
    groups = prompt_groups(context, lm, context.train, shown, soft.n_tokens if soft else 0)
    trainer = Trainer(
        modules, made.loss, optim, total_steps=60, work=folder, log=folder / "log.jsonl", label="align",
        progress=False, load=made.load, parts=lambda loaded: loaded,
    )  # fmt: skip
    return trainer, made, step_groups(groups, config.batch_questions, np.random.default_rng(0))


@pytest.mark.parametrize(("strategy", "integration"), SHOWN)
def test_a_step_asks_the_device_for_nothing(context, method, tmp_path, as_on_a_gpu, strategy, integration):  # noqa: F811
    """But for the one reading of twenty steps' losses."""
    trainer, made, steps = alignment(context, method, tmp_path, strategy, integration)
    first, second = made.load(steps[0]), made.load(steps[1])
    assert len(second) > 1 and math.isclose(sum(weight for _, weight in second), 1)
    assert_a_step_asks_for_nothing(trainer, first, second)


@pytest.mark.parametrize(("strategy", "integration"), SHOWN[1:3])
def test_what_is_packed_ahead_and_copied_together_trains_the_same(
    context, method, tmp_path, monkeypatch, strategy, integration
):
    """Equal losses and weights to the bit: packed where it is used, and by a thread into one buffer a part."""

    def copied(arrays, device, stream):
        return apart(*joined(arrays, pinned=False)), None

    monkeypatch.setattr(alignment_batches, "copied_together", copied)
    results = []
    for ahead in (False, True):
        folder = tmp_path / str(ahead)
        folder.mkdir()
        trainer, made, steps = alignment(context, method, folder, strategy, integration)
        trainer.is_host_ahead, made.stream = ahead, "its own" if ahead else None
        trainer.run(lambda epoch, steps=steps: steps)
        results.append((trainer.records, [p.detach().clone() for p in trainer.parameters]))
    assert results[0][0] == results[1][0] and len(results[0][0]) >= 3
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))
