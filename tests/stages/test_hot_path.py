"""A training step's host work: what it asks of the device, how batches come to it, and when losses are read."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uqabench.encoders import UserEncoder
from uqabench.errors import RunError
from uqabench.kernels.checks import host_array, host_longest
from uqabench.stages import training
from uqabench.stages.packed import TorchBatch, apart, joined
from uqabench.stages.prefetch import prefetched
from uqabench.stages.pretrain import PretrainLoss, training_batches
from uqabench.stages.training import Trainer, seed_everything
from uqabench.stages.unread import EVERY

from .host_reads import as_on_a_gpu, counted  # noqa: F401

CPU = torch.device("cpu")
ENCODERS = ("gru4rec", "sasrec", "mamba4rec", "mamba2", "trm++", "hstu")


class Device(str):
    """A device that torch takes for the CPU and the training loop for a GPU."""


def make_trainer(store, config, folder):
    seed_everything(0, CPU)
    model = UserEncoder.build(config.encoder, store.catalogue)

    def load(part):
        return TorchBatch.pack(store, *part, CPU, model, with_labels=True)

    trainer = Trainer(
        {"model": model}, PretrainLoss(model, config, store.catalogue.popularity), config.optim, total_steps=60,
        work=folder, log=folder / "log.jsonl", label="pretrain", progress=False, load=load,
    )  # fmt: skip
    return trainer, load
