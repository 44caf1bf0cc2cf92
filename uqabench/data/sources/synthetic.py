"""A synthetic log with known truth: of any size (`planted` holds its law), or of the paper's (`paper_scale`)."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pyarrow as pa

from uqabench.data.log import MICROSECONDS, RawLog
from uqabench.data.rejections import Rejections
from uqabench.data.sources.columns import short
from uqabench.data.sources.paper_scale import PaperScale
from uqabench.data.sources.planted import (
    SyntheticConfig,
    changes,
    draw,
    drawn_interests,
    drawn_lengths,
    item_attributes,
    item_names,
    planted_truth,
    popularity,
    successors,
    user_names,
)
from uqabench.errors import InputError


class Synthetic:
    """Draws a log from `SyntheticConfig`, or with `scale` ("paper", or a fraction of it) one of the paper's size
    (`paper_scale`), for which only `seed` can be set as well; the truth is written beside the store as truth.arrow.

    truth.arrow, one row a user: starts list<int64> (Unix seconds at which each stretch of interests begins),
    categories list<list<string>> and weights list<list<double>> (the interests of each stretch, strongest first).
    """

    name = "synthetic"
    accepts = ("scale", *(item.name for item in fields(SyntheticConfig)))

    def __init__(self, path: Path | str | None = None, scale: str | float | None = None, **options: Any) -> None:
        if path is not None:
            raise InputError("The source 'synthetic' reads no files: leave out the path.")
        self.notes = ["Synthetic: no one did any of this."]
        self.scaled = None if scale is None else PaperScale(_fraction(scale), **_seed_alone(options))
        self.config = SyntheticConfig(**options) if self.scaled is None else self.scaled.config

    def options(self) -> dict[str, Any]:
        own = asdict(self.config)
        return own if self.scaled is None else {"scale": self.scaled.fraction, **own}

    def inputs(self) -> dict[str, str]:
        return {}

    def read(self, rejections: Rejections) -> RawLog:
        if self.scaled is not None:
            return _read_scaled(self.scaled)
        config = self.config
        random = np.random.Generator(np.random.Philox(config.seed))
        attributes = item_attributes(config, random)
        lengths = drawn_lengths(config, random)
        drifts = np.minimum(random.poisson(config.drifts, config.users), lengths - 1)
        stretches = np.r_[0, np.cumsum(drifts + 1)]
        categories, weights = drawn_interests(config, random, int(stretches[-1]))
        offsets = np.r_[0, np.cumsum(lengths)]
        items, times, begins = draw(
            offsets,
            stretches,
            changes(random, lengths, drifts),
            categories,
            np.cumsum(weights, 1),
            popularity(config),
            config.categories,
            config.items,
            successors(config),
            config.transitions,
            config.transition_lag,
            config.repeat_probability,
            1.0 / config.basket_size,
            config.mean_gap,
            random.integers(0, 2**63, config.users, np.int64).astype(np.uint64),
        )
        times += config.start
        return _raw_log(
            config,
            np.repeat(np.arange(config.users, dtype=np.int32), lengths),
            items,
            times,
            attributes,
            planted_truth(stretches, begins, times, categories, weights),
        )


def _read_scaled(scaled: PaperScale) -> RawLog:
    """The chunks laid end to end."""
    users, items = (np.empty(scaled.interactions, np.int32) for _ in range(2))
    times = np.empty(scaled.interactions, np.int64)
    truth, first = [], 0
    for chunk in scaled.chunks(numba.get_num_threads()):
        rows = slice(first, first + len(chunk.items))
        users[rows], items[rows], times[rows] = chunk.users, chunk.items, chunk.times
        truth.append(chunk.truth)
        first = rows.stop
    return _raw_log(scaled.config, users, items, times, scaled.attributes(), pa.concat_tables(truth))


def _raw_log(
    config: SyntheticConfig,
    users: np.ndarray,
    items: np.ndarray,
    times: np.ndarray,
    attributes: dict[str, pa.Array],
    truth: pa.Table,
) -> RawLog:
    return RawLog(
        user_ids=user_names(0, config.users),
        users=users,
        item_ids=item_names(config.items),
        items=items,
        attributes=attributes,
        read=(config.users, int(np.count_nonzero(np.bincount(items))), len(items)),
        times=times * MICROSECONDS,
        truth=truth,
    )


def _fraction(scale: str | float) -> float:
    if scale == "paper":
        return 1.0
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
        raise InputError(f"scale is {short(repr(scale))} and should be paper or a fraction of it, such as 0.01.")
    return float(scale)


def _seed_alone(options: dict[str, Any]) -> dict[str, int]:
    other = sorted(set(options) - {"seed"})
    if other:
        raise InputError(f"With scale, '{other[0]}' follows from the paper's data: leave out one of the two.")
    return {"seed": SyntheticConfig(**options).seed}
