"""Interaction logs as numpy and Arrow: sources, preprocessing, the store, and the packer. No torch."""

from uqabench.data.catalogue import ATTRIBUTES, Catalogue
from uqabench.data.packer import BatchPlan, PackedBatch, batch_plan, pack, plan_batches, windows
from uqabench.data.prepare import describe, prepare
from uqabench.data.preprocess import read_ids
from uqabench.data.sources import open_source, source_names
from uqabench.data.store import InteractionStore
from uqabench.settings.data import PrepareConfig

__all__ = [
    "ATTRIBUTES",
    "BatchPlan",
    "Catalogue",
    "InteractionStore",
    "PackedBatch",
    "PrepareConfig",
    "batch_plan",
    "describe",
    "open_source",
    "pack",
    "plan_batches",
    "prepare",
    "read_ids",
    "source_names",
    "windows",
]
