"""Each encoder against its untrained twin: what pre-training adds to the score, on the same questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uqabench.files import hash_json
from uqabench.plan.methods import PATCHABLE, Method
from uqabench.questions.scoring import align_answers, read_predictions
from uqabench.questions.statistics import holm, paired_difference
from uqabench.settings.reader import key_dict


@dataclass(frozen=True)
class Scored:
    """A method that was evaluated once for each of its seeds: by seed the folder of its answers, and the indices of its
    cells where it belongs to an experiment."""

    methods: Mapping[int, Method]
    folders: Mapping[int, Path]
    cells: Sequence[int] = ()

    @property
    def first(self) -> Method:
        return next(iter(self.methods.values()))


def twin_differences(scored: Sequence[Scored], rule: str) -> list[dict[str, Any]]:
    """One record (`settings.results.TwinDifference`) a trained encoder whose untrained twin is among `scored`.

    Answers of several seeds are taken together, and users are the unit of interval and test: a user's answers under all
    seeds are one. Seeds that one of the two lacks are left out. p_holm is adjusted over the records.
    """
    untrained = {_identity(each.first): each for each in scored if _is_encoder(each.first, trained=False)}
    records = []
    for each in scored:
        twin = untrained.get(_identity(each.first)) if _is_encoder(each.first, trained=True) else None
        seeds = [seed for seed in each.folders if twin is not None and seed in twin.folders]
        if seeds:
            records.append(_difference(each, twin, seeds, rule))
    for record, adjusted in zip(records, holm([record["p_value"] for record in records]).tolist(), strict=True):
        record["p_holm"] = adjusted
    return records


def _is_encoder(method: Method, *, trained: bool) -> bool:
    config = method.config
    return method.kind == "encoder" and config.pretrain.train == trained and not config.evaluate.shuffle


def _identity(method: Method) -> str:
    """Of all that decides a method's score but whether its encoder was trained."""
    settings = {name: key_dict(getattr(method.config, name)) for name in PATCHABLE}
    settings["pretrain"].pop("train")
    return hash_json([method.base, settings])


def _difference(method: Scored, twin: Scored, seeds: Sequence[int], rule: str) -> dict[str, Any]:
    pairs = []
    for seed in seeds:
        rows = [read_predictions(each.folders[seed] / "predictions.jsonl") for each in (method, twin)]
        pairs.append(align_answers(rows, rule))
    correct = np.concatenate([of_seed for of_seed, _, _ in pairs], axis=1)
    result = paired_difference(*correct, np.concatenate([users for _, _, users in pairs]), seed=0)
    return {
        "method": method.first.name,
        "twin": twin.first.name,
        **({"cells": list(method.cells), "twin_cells": list(twin.cells)} if method.cells else {}),
        "seeds": list(seeds),
        "difference": round(result.difference, 4),
        "ci95": [round(bound, 4) for bound in result.ci95],
        "p_value": result.p_value,
        "n": result.n,
        "users": result.users,
    }
