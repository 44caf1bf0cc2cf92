"""The row of a whole pre-training step as the pipeline takes it: batches packed and copied by a thread, HSTU at
published size, the loss over a catalogue of 994,447 items, clipping and AdamW.

It is what the end-to-end verdict prices, as it holds all that a step costs, the host included.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import torch

from bench import work
from bench.gpu.goals import PIPELINE
from bench.row import Floor, Made, Row, Setting
from bench.rows.encoders import WORK, encoder_floor
from uqabench.data.catalogue import ATTRIBUTES, Catalogue
from uqabench.data.packer import pack
from uqabench.data.store import InteractionStore
from uqabench.encoders import UserEncoder, build_encoder
from uqabench.settings.encoders import UserEncoderConfig
from uqabench.settings.stages import PretrainConfig
from uqabench.settings.training import OptimConfig
from uqabench.stages.labels import next_item_labels
from uqabench.stages.packed import TorchBatch
from uqabench.stages.precision import loss_dtype, pretraining_optim
from uqabench.stages.prefetch import AHEAD, prefetched
from uqabench.stages.pretrain import PretrainLoss
from uqabench.stages.training import Trainer, seed_everything

ENCODER = "hstu"
ITEMS, USERS, LENGTH = 994_447, 128, 512


def _sizes(setting: Setting) -> tuple[int, int, int]:
    """(items, users a step, items a user)"""
    return (301, 3, 9) if setting.is_small else (ITEMS, USERS, LENGTH)


def catalogue_of(items: int, rng: np.random.Generator) -> Catalogue:
    """Items with titles of eight tokens and one of 100 categories."""
    values = {name: [] for name in ATTRIBUTES} | {"title": [""] * items, "category": [""] * 100}
    codes = {name: np.full(items, -1, np.int32) for name in ATTRIBUTES}
    codes["title"], codes["category"] = np.arange(items, dtype=np.int32), (np.arange(items) % 100).astype(np.int32)
    tokens = {name: (np.zeros(1, np.int64), np.zeros(0, np.int32)) for name in ATTRIBUTES}
    for name, count, length in (("title", items, 8), ("category", 100, 2)):
        tokens[name] = (
            np.arange(0, count * length + 1, length),
            rng.integers(20_000, size=count * length).astype(np.int32),
        )
    return Catalogue(np.empty(items, object), values, codes, np.ones(items, np.int64), tokens, 20_000)


def store_of(setting: Setting) -> InteractionStore:
    """Four steps of users with full histories of random items."""
    items, users, length = _sizes(setting)
    rng = np.random.default_rng(0)
    count = 4 * users
    return InteractionStore(
        offsets=np.arange(0, count * length + 1, length),
        items=rng.integers(items, size=count * length).astype(np.int32),
        timestamps=None,
        actions=None,
        user_ids=[""] * count,
        split=np.zeros(count, np.int8),
        catalogue=catalogue_of(items, rng),
    )


class Pipeline:
    """A trainer and an endless stream of its batches, as in `uqabench.stages.pretrain`."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        device = torch.device(setting.device)
        seed_everything(0, device)
        store, (_, users, length) = store_of(setting), _sizes(setting)
        shape = UserEncoderConfig(encoder=ENCODER, preset="tiny" if setting.is_small else "published")
        budget = max(2, users * length)
        config = PretrainConfig(encoder=shape, length=length, token_budget=budget, optim=OptimConfig(bf16=True))
        model = UserEncoder.build(shape, store.catalogue).to(device)
        optim = pretraining_optim(config.optim, device)
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None

        def load(rows: np.ndarray) -> TorchBatch:
            span = np.zeros(users, np.int64), np.full(users, length)
            packed = pack(store, rows, *span)
            labels = next_item_labels(packed.items, packed.offsets)
            return TorchBatch.of(packed, device, model, labels=labels, stream=stream)

        loss = PretrainLoss(model, config, store.catalogue.popularity, loss_dtype(optim))
        self.trainer = Trainer(
            {"model": model}, loss, optim, total_steps=10**6, work=folder, log=folder / "log.jsonl",
            label="pipeline", progress=False,
        )  # fmt: skip
        parts = np.arange(4 * users).reshape(4, users)
        self.batches = prefetched(cycle(parts), load, AHEAD)

    def step(self) -> None:
        self.trainer._step(next(self.batches))

    def waits(self, steps: int = 4) -> int:
        """How often the host waited for the GPU in so many steps, by torch's own warnings."""
        self.step()
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                for _ in range(steps):
                    self.step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(one.message) for one in found)


def _make(setting: Setting) -> Made:
    pipeline = Pipeline(setting, Path(tempfile.mkdtemp()))
    return Made([pipeline.step], backend="pipeline")


def _floor(setting: Setting) -> Floor:
    items, users, length = _sizes(setting)
    with torch.device("meta"):
        encoder = build_encoder(ENCODER, "tiny" if setting.is_small else "published", dropout=0.0)
    loss = work.linear_cross_entropy(users * (length - 1), items, 16 if setting.is_small else 128).both
    return Floor(encoder_floor(encoder, [length] * users, WORK[ENCODER]).least + loss)


def rows() -> Iterator[Row]:
    yield Row(
        name=PIPELINE,
        group="pipeline",
        unit="tensor",
        floor=_floor,
        make=_make,
        tokens=lambda setting: _sizes(setting)[1] * _sizes(setting)[2],
    )
