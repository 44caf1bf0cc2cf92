"""A synthetic log of the paper's size or a fraction of it, drawn in chunks of users.

A chunk depends on the seed and its place alone, so that the log is the same for any number of workers, and is written
or kept as it comes. Only what there is one of for each user or item is held as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from statistics import NormalDist

import numpy as np
import pyarrow as pa

from uqabench.data.sources.planted import (
    SyntheticConfig,
    changes,
    draw,
    interest_weights,
    item_attributes,
    planted_truth,
    popularity,
)
from uqabench.errors import InputError

USERS, ITEMS, INTERACTIONS = 184_520, 994_447, 31_317_087
CATEGORIES, BRANDS, SHOPS = 9_330, 149_750, 268_446
"""Sizes of the paper's data set."""
SHORTEST, LONGEST = 5, 512
CHUNK = 4096
"""Users that are drawn together."""

_CATEGORY_EXPONENT = 0.5
_LENGTH_SPREAD = 0.9
_STREAM = 1 << 32  # a chunk's generator is keyed by the seed and this plus its place


@dataclass(frozen=True)
class Chunk:
    """Consecutive users' interactions: user, item int32 and time int64 (Unix seconds) by row, and their truth."""

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    truth: pa.Table


class PaperScale:
    """The log of `fraction` of the paper's users, items and interactions.

    Lengths are log-normal, cut off at 5 and 512, with the paper's mean; categories and the items in them follow Zipf's
    law; interests, drifts, repeats and baskets are planted as in the other synthetic logs. Raises InputError for a
    fraction that is not above zero or leaves less than 100 users.
    """

    def __init__(self, fraction: float, seed: int = 0) -> None:
        if not (0 < fraction <= 100 and round(USERS * fraction) >= 100):
            raise InputError(
                f"scale is {fraction} and should be paper or a fraction of it, from {100 / USERS:.4f} (100 users) "
                "to 100."
            )
        self.fraction, self.interactions = fraction, round(INTERACTIONS * fraction)
        categories = max(20, round(CATEGORIES * fraction))
        self.config = SyntheticConfig(
            users=round(USERS * fraction), items=max(categories, round(ITEMS * fraction)), categories=categories,
            brands_per_category=BRANDS // CATEGORIES, shops=max(1, round(SHOPS * fraction)),
            popularity_exponent=0.8, interests=5, drifts=2.0, basket_size=1.5, seed=seed,
        )  # fmt: skip

    def attributes(self) -> dict[str, pa.Array]:
        """A value of each attribute for each item."""
        return item_attributes(self.config, np.random.Generator(np.random.Philox(self.config.seed)))

    def lengths(self) -> np.ndarray:
        """int64 (U,): interactions of each user; their sum is `interactions`."""
        users = self.config.users
        grid = np.linspace(0, 1, 4098)[1:-1]
        normal = np.interp((np.arange(users) + 0.5) / users, grid, [NormalDist().inv_cdf(share) for share in grid])

        def with_centre(centre: float) -> np.ndarray:
            return np.clip(np.rint(np.exp(centre + _LENGTH_SPREAD * normal)), SHORTEST, LONGEST).astype(np.int64)

        low, high = 0.0, float(np.log(LONGEST))
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if with_centre(middle).sum() < self.interactions else (low, middle)
        lengths = with_centre(low)
        missing = self.interactions - int(lengths.sum())  # rounding: one more for some of those in the middle
        between = np.flatnonzero((lengths > SHORTEST) & (lengths < LONGEST))
        lengths[between[:missing]] += 1
        return lengths[np.random.Generator(np.random.Philox(key=[self.config.seed, 1])).permutation(users)]

    def chunks(self, workers: int = 1) -> Iterator[Chunk]:
        """All users in order; `workers` threads draw ahead."""
        lengths, shares = self.lengths(), popularity(self.config)
        ranks = np.cumsum(np.arange(1, self.config.categories + 1, dtype=np.float64) ** -_CATEGORY_EXPONENT)
        firsts = iter(range(0, self.config.users, CHUNK))
        with ThreadPoolExecutor(workers) as pool:
            ahead = [pool.submit(self._chunk, f, lengths, shares, ranks) for f in islice(firsts, workers + 1)]
            while ahead:
                yield ahead.pop(0).result()
                ahead += [pool.submit(self._chunk, f, lengths, shares, ranks) for f in islice(firsts, 1)]

    def _chunk(self, first: int, lengths: np.ndarray, shares: np.ndarray, ranks: np.ndarray) -> Chunk:
        config, own = self.config, lengths[first : first + CHUNK]
        random = np.random.Generator(np.random.Philox(key=[config.seed, _STREAM + first // CHUNK]))
        drifts = np.minimum(random.poisson(config.drifts, len(own)), own - 1)
        stretches = np.r_[0, np.cumsum(drifts + 1)]
        categories = _categories(random, int(stretches[-1]), config.interests, ranks)
        weights = interest_weights(config, random, len(categories))
        offsets = np.r_[0, np.cumsum(own)]
        items, times, begins = draw(
            offsets, stretches, changes(random, own, drifts), categories, np.cumsum(weights, 1), shares,
            config.categories, config.items, np.empty(0, np.int32), config.transitions, config.transition_lag,
            config.repeat_probability, 1.0 / config.basket_size, config.mean_gap,
            random.integers(0, 2**63, len(own), np.int64).astype(np.uint64),
        )  # fmt: skip
        times += config.start
        users = np.repeat(np.arange(first, first + len(own), dtype=np.int32), own)
        return Chunk(users, items, times, planted_truth(stretches, begins, times, categories, weights, first))


def _categories(random: np.random.Generator, size: int, interests: int, ranks: np.ndarray) -> np.ndarray:
    """int64 (size, interests): different categories by popularity; where one comes twice, the next one that is free."""
    drawn = np.searchsorted(ranks, random.random((size, interests)) * ranks[-1], side="right")
    drawn = np.minimum(drawn, len(ranks) - 1)
    for column in range(1, interests):
        while (twice := (drawn[:, :column] == drawn[:, column, None]).any(1)).any():
            drawn[twice, column] = (drawn[twice, column] + 1) % len(ranks)
    return drawn
