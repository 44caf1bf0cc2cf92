"""What store.json says of a store: how it was made, what was left out on the way, and how large it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uqabench.errors import InputError

if TYPE_CHECKING:
    from uqabench.data.store import InteractionStore

COUNTED = ("users", "items", "interactions")
_SIDES = ("all", "train", "evaluation")
"""What every store counts; one with validation users counts these too."""

_SIZES = {name: int for name in COUNTED}
_LENGTHS = {"mean_length": float, "median_length": float, "max_length": int}
_SHAPE: dict[str, Any] = {
    "split_hash": str,
    "content_hash": str,
    "source": {"name": str},
    "config": {"split_seed": int},
    "notes": [str],
    "attributes": [str],
    "actions": [str],
    "counts": {name: {**_SIZES, **_LENGTHS} for name in _SIDES},
    "removals": [{"rule": str, **_SIZES}],
    "rejected": dict,
}
"""The fields that something reads, and their types. A list holds any number of its one element."""


def counts_of_store(store: InteractionStore) -> dict[str, Any]:
    """Users, items, interactions and sequence lengths of the store and of each side of its split."""
    sides = (*_SIDES, "validation") if store.held_out == "validation" else _SIDES
    return {name: _sizes(store, name) for name in sides}


def _sizes(store: InteractionStore, split: str) -> dict[str, Any]:
    users = store.users(None if split == "all" else split)
    lengths = store.lengths[users]
    inside = np.repeat(np.isin(np.arange(len(store)), users), store.lengths)
    return {
        "users": len(users),
        "items": int(np.count_nonzero(np.bincount(store.items[inside], minlength=1))),
        "interactions": int(lengths.sum()),
        "mean_length": round(float(lengths.mean()), 2) if len(users) else 0.0,
        "median_length": float(np.median(lengths)) if len(users) else 0.0,
        "max_length": int(lengths.max()) if len(users) else 0,
    }


def facts_by_hand(store: InteractionStore) -> dict[str, Any]:
    """What can be said of a store that no preparation made."""
    return {
        "source": {"name": "by hand"},
        "config": {"split_seed": 0},
        "notes": [],
        "attributes": list(store.catalogue.attributes()),
        "actions": [],
        "counts": counts_of_store(store),
        "removals": [],
        "rejected": {},
    }


def check_facts(path: Path, facts: Any) -> dict[str, Any]:
    """The content of store.json when each field that is read has its type; InputError names the first that has not."""
    wrong = _misfit(facts, _SHAPE, "")
    if wrong is None and "read" in facts["counts"]:
        wrong = _misfit(facts["counts"]["read"], _SIZES, "counts.read")
    if wrong is None and "validation" in facts["counts"]:
        shape = {"counts": {"validation": _SHAPE["counts"]["all"]}, "evaluation_hash": str}
        wrong = _misfit(facts, shape, "")
    if wrong is not None:
        where = f"'{wrong.lstrip('.')}' is missing or of another type" if wrong else "it holds no mapping"
        raise InputError(f"{path}: {where}: run `uqabench prepare` again.")
    return facts


def _misfit(value: Any, shape: Any, name: str) -> str | None:
    """The dotted name of the first value that is not of its shape; None when all are."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return name
        found = (_misfit(value.get(key), inner, f"{name}.{key}") for key, inner in shape.items())
    elif isinstance(shape, list):
        if not isinstance(value, list):
            return name
        found = (_misfit(element, shape[0], f"{name}[{i}]") for i, element in enumerate(value))
    else:
        kinds = (int, float) if shape is float else shape
        return None if isinstance(value, kinds) and not isinstance(value, bool) else name
    return next((wrong for wrong in found if wrong is not None), None)
