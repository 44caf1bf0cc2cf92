"""Packed batches on their way to the device, checked on the host, with what a step would ask the device for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uqabench.data.packer import PackedBatch, pack
from uqabench.data.store import InteractionStore
from uqabench.encoders import UserEncoder
from uqabench.encoders.item_plan import ItemPlan, on_device
from uqabench.kernels.memory import know_bounds, know_offsets
from uqabench.stages.copies import Arrival, copied_together


@dataclass(frozen=True)
class TorchBatch:
    """A packed batch as tensors: items (T,), offsets (B+1,), timestamps (T,) or None.

    labels: arrays of `uqabench.stages.labels` on the device. plan: the encoder's, None where none was given.
    """

    items: Tensor
    offsets: Tensor
    timestamps: Tensor | None
    labels: dict[str, Tensor] | None = None
    plan: ItemPlan | None = None
    arrival: Arrival | None = None

    @classmethod
    def pack(
        cls,
        store: InteractionStore,
        users: np.ndarray,
        starts: np.ndarray,
        ends: np.ndarray,
        device: torch.device,
        model: UserEncoder | None = None,
    ) -> TorchBatch:
        """Pack on the host and copy to `device`, with the plan of `model` where there is one."""
        return cls.of(pack(store, users, starts, ends), device, model)

    @classmethod
    def of(
        cls,
        packed: PackedBatch,
        device: torch.device,
        model: UserEncoder | None = None,
        *,
        labels: Mapping[str, np.ndarray] | None = None,
        stream: torch.cuda.Stream | None = None,
    ) -> TorchBatch:
        """Copy to `device` what was packed, the plan of `model` and the labels.

        On a GPU everything is one copy from pinned memory, for which the host does not wait, on `stream` (by default
        the current one); on another stream than that of the step, call `arrive` before the first use.
        """
        arrays = {"items": packed.items, "offsets": packed.offsets, **(labels or {})}
        if packed.timestamps is not None:
            arrays["timestamps"] = packed.timestamps
        plan = None if model is None else model.plan(packed.items, packed.offsets)
        arrays |= plan.arrays if plan is not None else {}
        if device.type == "cuda":
            tensors, arrival = copied_together(arrays, device, stream)
        else:
            tensors, arrival = on_device(arrays, device), None
        offsets = know_offsets(tensors["offsets"], packed.offsets)
        if packed.timestamps is not None:
            know_bounds(tensors["timestamps"], packed.timestamps)
        return cls(
            tensors["items"],
            offsets,
            tensors.get("timestamps"),
            None if labels is None else _known({name: tensors[name] for name in labels}, labels),
            None if plan is None else model.planned(plan, tensors, offsets),
            arrival,
        )

    def arrive(self) -> TorchBatch:
        """Makes the current stream wait for the copy, where that ran on another."""
        if self.arrival is not None:
            self.arrival.wait()
        return self


def _known(tensors: dict[str, Tensor], labels: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The labels with what operators would ask the device about them."""
    return {**tensors, "target": know_bounds(tensors["target"], labels["target"])}
