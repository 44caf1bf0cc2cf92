"""The rows of `bench.scale` about pre-training: its batches, how soon it begins and how long it takes."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.stopwatch import Result, Stopwatch
from uqabench.data import InteractionStore
from uqabench.data.sources.paper_scale import USERS
from uqabench.encoders import UserEncoder
from uqabench.settings.run import run_config
from uqabench.settings.stages import PretrainConfig
from uqabench.stages.prefetch import AHEAD, prefetched
from uqabench.stages.pretrain import batch_maker, numbered, pretrain, training_batches
from uqabench.stages.training import Trainer

_LOADED_SECONDS = 4.0
_TRAINED_SECONDS, _MORE_SECONDS = 10.0, 240.0
"""Of the processor; the second more at the whole size, so that training there goes on for minutes."""
_LEAST_STEPS = 2
_SEQUENCES_A_STEP, _TOKENS_A_STEP = 16, 2_048
"""Far below the published 256 and 131,072, so that some steps take minutes on two cores."""

Step = Callable[[Trainer, Any], int]


class Stopped(Exception):
    """Raised in place of a training step that is one too many."""


def pack_loader(work: Path) -> Result:
    """Sequences a second as pre-training gets them: packed ahead by a thread, with what they have to predict and the
    features of each different item once."""
    store, config = InteractionStore.open(work / "store"), _paper_settings()
    # Batches are the same whatever the sizes of the tables, which take memory and time to draw.
    model = UserEncoder.build(replace(config.encoder, preset="tiny", item_dim=1, side_dim=1), store.catalogue)
    make = batch_maker(store, config, model, torch.device("cpu"))
    batches = numbered(0, training_batches(store, config, 0))
    make(batches[0])  # compiled
    watch, sequences, tokens, steps = Stopwatch(), 0, 0, 0
    for batch in prefetched(batches, make, AHEAD):
        sequences += len(batch.offsets) - 1
        tokens += len(batch.items)
        steps += 1
        if watch.cpu > _LOADED_SECONDS:
            break
    return Result.rate(sequences, watch, sequences=sequences, tokens=tokens, steps=steps)


def first_step(work: Path) -> Result:
    """Seconds from the start of the process to the first training step of the published SASRec."""
    before = Stopwatch().before

    def begin(step: Step, trainer: Trainer, batch: Any) -> int:
        raise Stopped

    config = _paper_settings()
    _train_until_stopped(work, config, begin)
    wall, cpu = time.time() - float(os.environ["BENCH_STARTED"]), time.process_time()
    return Result(wall, cpu, wall, cpu, before, {"encoder": config.encoder.encoder})


def pretrain_rate(work: Path) -> Result:
    """Tokens a second of the first steps of the published SASRec, of few sequences each, and the hours that ten epochs
    would take at that rate."""
    config = replace(_paper_settings(), batch_size=_SEQUENCES_A_STEP, token_budget=_TOKENS_A_STEP)
    seconds = _TRAINED_SECONDS + _MORE_SECONDS * min(1.0, len(InteractionStore.open(work / "store")) / USERS)
    done: list[int] = []
    watches: list[Stopwatch] = []

    def timed(step: Step, trainer: Trainer, batch: Any) -> int:
        if not done:
            watches.append(Stopwatch())
        done.append(step(trainer, batch))
        if len(done) >= _LEAST_STEPS and watches[0].cpu > seconds:
            raise Stopped
        return done[-1]

    _train_until_stopped(work, config, timed)
    tokens, wall, cpu = sum(done), watches[0].wall, watches[0].cpu
    epoch = _tokens_an_epoch(InteractionStore.open(work / "store"), config)
    hours = {
        name: round(config.optim.epochs * epoch / tokens * spent / 3600, 1)
        for name, spent in (("hours_of_all_epochs", wall), ("cpu_hours_of_all_epochs", cpu))
    }
    more = {
        "steps": len(done), "tokens": tokens, "tokens_an_epoch": epoch, "epochs": config.optim.epochs,
        "steps_per_second": round(len(done) / wall, 4), "steps_per_cpu_second": round(len(done) / cpu, 4),
    }  # fmt: skip
    return Result(tokens / wall, tokens / cpu, wall, cpu, watches[0].before, {**more, **hours})


def _tokens_an_epoch(store: InteractionStore, config: PretrainConfig) -> int:
    lengths = np.minimum(store.lengths[store.users("train")], config.length)
    return int(lengths[lengths >= 2].sum())


def _paper_settings() -> PretrainConfig:
    """Those of the preset `paper`, without checkpoints, whose seconds are the disk's."""
    config = run_config("paper").pretrain
    encoder = replace(config.encoder, encoder="sasrec")
    return replace(config, encoder=encoder, optim=replace(config.optim, checkpoint_seconds=1e9))


def _train_until_stopped(work: Path, config: PretrainConfig, instead: Callable[[Step, Trainer, Any], int]) -> None:
    """Pre-train, with `instead` in place of a training step, until it raises Stopped."""
    step = Trainer._step

    def changed(trainer: Trainer, batch: Any) -> int:
        return instead(step, trainer, batch)

    Trainer._step = changed  # type: ignore[method-assign]
    store = InteractionStore.open(work / "store")
    with tempfile.TemporaryDirectory() as folder:
        try:
            pretrain(store, config, progress=False).build(Path(folder) / "pretrain")
        except Stopped:
            return
        finally:
            Trainer._step = step  # type: ignore[method-assign]
    raise RuntimeError("training ended before it was stopped")
