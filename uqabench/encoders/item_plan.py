"""What the item tower needs to know of a batch's items, found on the host where the batch is packed.

Each distinct item is embedded once, and so is each distinct text of it. How many there are decides shapes, which a GPU
could only tell by making the host wait; the host has the items and the catalogue anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from uqabench.kernels.memory import know_bounds, know_offsets


class Text(NamedTuple):
    """An attribute's texts by code: codes int (V,), -1 where an item lacks it; offsets (C+1,), ids (N,) of tokens."""

    codes: np.ndarray
    offsets: np.ndarray
    ids: np.ndarray


@dataclass(frozen=True)
class Bags:
    """The distinct texts of one attribute in a batch: token ids (M,) by offsets (S+1,), and the text (U,) of an item.

    Items without the attribute share an empty text.
    """

    ids: Tensor
    offsets: Tensor
    of_item: Tensor


@dataclass(frozen=True)
class ItemPlan:
    """distinct (U,), ascending; places (T,): where in `distinct` each of the batch's items is; bags by attribute."""

    distinct: Tensor
    places: Tensor
    bags: dict[str, Bags]


def plan_items(items: np.ndarray, size: int, texts: Mapping[str, Text]) -> dict[str, np.ndarray]:
    """The arrays int64 of an ItemPlan by name, for items int64 (T,) in [0, size)."""
    distinct, places = _distinct(items, size)
    arrays = {"items.distinct": distinct, "items.places": places}
    for name, text in texts.items():
        codes, of_item = _distinct(text.codes[distinct].astype(np.int64) + 1, len(text.offsets))
        codes -= 1  # -1 came first
        first = text.offsets[np.maximum(codes, 0)]
        lengths = np.where(codes >= 0, text.offsets[np.maximum(codes, 0) + 1] - first, 0)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        slots = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], lengths)
        arrays[f"{name}.ids"], arrays[f"{name}.offsets"] = text.ids[slots].astype(np.int64), offsets
        arrays[f"{name}.of_item"] = of_item
    return arrays


def _distinct(values: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct of `values` in [0, size), ascending, and the place of each value among them: without sorting."""
    is_there = np.zeros(size, bool)
    is_there[values] = True
    distinct = np.flatnonzero(is_there)
    place = np.empty(size, np.int64)
    place[distinct] = np.arange(len(distinct))
    return distinct, place[values]


def as_item_plan(tensors: Mapping[str, Tensor], arrays: Mapping[str, np.ndarray], names: list[str]) -> ItemPlan:
    """The plan whose arrays `plan_items` made, now on a device, for the attributes `names`; what the host knows of them
    is kept with them."""
    bags = {}
    for name in names:
        ids = know_bounds(tensors[f"{name}.ids"], arrays[f"{name}.ids"])
        offsets = know_offsets(tensors[f"{name}.offsets"], arrays[f"{name}.offsets"])
        bags[name] = Bags(ids, offsets, tensors[f"{name}.of_item"])
    return ItemPlan(tensors["items.distinct"], tensors["items.places"], bags)


def on_device(arrays: Mapping[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    """Each array as a tensor of its own on `device`."""
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
