"""A synthetic log with known truth: planted interests, their drifts, a popularity law, an order, repeats, baskets."""

from __future__ import annotations

from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from uqabench.data.jit import jit
from uqabench.data.log import MICROSECONDS, RawLog
from uqabench.data.rejections import Rejections
from uqabench.errors import InputError
from uqabench.settings.schema import MAX_SEED, section, setting

_SUCCESSOR_SALT = 1
_SYLLABLES = [consonant + vowel for consonant in "bdfghjklmnprstvwz" for vowel in "aeiou"]


@section("synthetic")
class SyntheticConfig:
    """The law of the log. A user holds interests for a stretch of time, then draws new ones."""

    users: int = setting(1_000, "number of users", ge=2, le=10**8)
    items: int = setting(2_000, "number of items, spread evenly over the categories", ge=1, le=10**8)
    categories: int = setting(20, "number of categories", ge=1, le=10**8)
    brands_per_category: int = setting(
        5, "brands that make items of one category; an item's brand is uniform among them; 0: none", ge=0, le=10**6
    )
    shops: int = setting(30, "shops; an item's shop is uniform among them; 0: none", ge=0, le=10**8)
    sellers: int = setting(0, "sellers, likewise; 0: none", ge=0, le=10**8)
    mean_length: float = setting(100.0, "mean number of interactions of a user", ge=1, le=1e6)
    length_spread: float = setting(
        0.5, "standard deviation of the logarithm of a user's number of interactions (log-normal)", ge=0, le=10
    )
    interests: int = setting(
        3, "categories that a user is interested in at a time, drawn without replacement", ge=1, le=10**6
    )
    concentration: float = setting(
        1.0, "Dirichlet parameter of the weights of those categories: small means one dominates", gt=0, le=1e6
    )
    drifts: float = setting(
        1.0, "mean number of times that a user's interests are drawn anew (Poisson), at uniform positions", ge=0, le=1e6
    )
    popularity_exponent: float = setting(
        1.0, "Zipf's law within a category: the r-th item is chosen in proportion to r ** -exponent", ge=0, le=100
    )
    repeat_probability: float = setting(
        0.2, "chance that an interaction repeats one, uniformly chosen, made under the present interests", ge=0, le=1
    )
    transitions: float = setting(
        0.0,
        "chance that an interaction is the planted successor, in its category, of the one `transition_lag` before",
        ge=0,
        le=1,
    )
    transition_lag: int = setting(
        1,
        "how many interactions before its successor an item comes: from 2 on the last item does not tell",
        ge=1,
        le=100,
    )
    basket_size: float = setting(
        1.0,
        "mean number of interactions that share a timestamp (geometric); interests change between baskets only",
        ge=1,
        le=1e6,
    )
    mean_gap: float = setting(21_600.0, "mean seconds between baskets (exponential, at least one second)", ge=0, le=1e9)
    start: int = setting(1_600_000_000, "Unix seconds before the first basket of every user", ge=0, le=10**11)
    seed: int = setting(0, "seed of the whole log", ge=0, le=MAX_SEED)

    def __post_init__(self) -> None:
        if self.interests > self.categories:
            raise ValueError(f"interests is {self.interests}, above categories {self.categories}: lower it.")
        if self.categories > self.items:
            raise ValueError(f"categories is {self.categories}, above items {self.items}: lower it.")


class Synthetic:
    """Draws a log from `SyntheticConfig`; the truth is written beside the store as truth.arrow.

    truth.arrow, one row a user: starts list<int64> (Unix seconds at which each stretch of interests begins),
    categories list<list<string>> and weights list<list<double>> (the interests of each stretch, strongest first).
    """

    name = "synthetic"
    accepts = tuple(item.name for item in fields(SyntheticConfig))

    def __init__(self, path: Path | str | None = None, **options: Any) -> None:
        if path is not None:
            raise InputError("The source 'synthetic' reads no files: leave out the path.")
        self.config = SyntheticConfig(**options)
        self.notes = ["Synthetic: no one did any of this."]

    def options(self) -> dict[str, Any]:
        return asdict(self.config)

    def inputs(self) -> dict[str, str]:
        return {}

    def read(self, rejections: Rejections) -> RawLog:
        config = self.config
        random = np.random.Generator(np.random.Philox(config.seed))
        attributes = _items(config, random)
        lengths = _lengths(config, random)
        drifts = np.minimum(random.poisson(config.drifts, config.users), lengths - 1)
        stretches = np.r_[0, np.cumsum(drifts + 1)]
        categories, weights = _interests(config, random, int(stretches[-1]))
        offsets = np.r_[0, np.cumsum(lengths)]
        items, times, begins = _draw(
            offsets,
            stretches,
            _changes(random, lengths, drifts),
            categories,
            np.cumsum(weights, 1),
            _popularity(config),
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
        return RawLog(
            user_ids=pa.array([f"user {u:08d}" for u in range(config.users)]),
            users=np.repeat(np.arange(config.users, dtype=np.int32), lengths),
            item_ids=pa.array([f"item {i:08d}" for i in range(config.items)]),
            items=items,
            attributes=attributes,
            read=(config.users, int(np.count_nonzero(np.bincount(items))), len(items)),
            times=times * MICROSECONDS,
            truth=_truth(stretches, begins, times, categories, weights),
        )


@cache
def word(index: int) -> str:
    """The index-th pseudo-word: consonant-vowel syllables, at least two; distinct indices give distinct words."""
    index, first = divmod(index, len(_SYLLABLES))
    text = _SYLLABLES[first]
    while index or len(text) < 4:
        index, digit = divmod(index, len(_SYLLABLES))
        text += _SYLLABLES[digit]
    return text


def _items(config: SyntheticConfig, random: np.random.Generator) -> dict[str, pa.Array]:
    """Item i has category i mod C; its title names brand, category and a word that is its own within the category."""
    category = np.arange(config.items) % config.categories
    names = {"category": [word(c) for c in category]}
    next_word = config.categories
    if config.brands_per_category:
        brand = category * config.brands_per_category + random.integers(0, config.brands_per_category, config.items)
        names["brand"] = [word(next_word + b) for b in brand]
        next_word += config.categories * config.brands_per_category
    for attribute, size in (("shop", config.shops), ("seller", config.sellers)):
        if size:
            names[attribute] = [word(next_word + s) for s in random.integers(0, size, config.items)]
            next_word += size
    own = [word(next_word + i // config.categories) for i in range(config.items)]
    parts = [names[name] for name in ("brand", "category") if name in names] + [own]
    names["title"] = [" ".join(text) for text in zip(*parts, strict=True)]
    return {name: pa.array(column) for name, column in names.items()}


def _lengths(config: SyntheticConfig, random: np.random.Generator) -> np.ndarray:
    scale = np.log(config.mean_length) - config.length_spread**2 / 2
    return np.maximum(1, np.rint(random.lognormal(scale, config.length_spread, config.users))).astype(np.int64)


def _interests(config: SyntheticConfig, random: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Categories int64 (S, K) and their weights (S, K), strongest first."""
    categories = np.argsort(random.random((size, config.categories)), 1)[:, : config.interests]
    weights = random.dirichlet(np.full(config.interests, config.concentration), size)
    return categories, -np.sort(-weights, 1)


def _changes(random: np.random.Generator, lengths: np.ndarray, drifts: np.ndarray) -> np.ndarray:
    """The place in its user's sequence from which each stretch may begin; 0 for a user's first."""
    user = np.repeat(np.arange(len(lengths)), drifts + 1)
    places = 1 + np.floor(random.random(len(user)) * (lengths[user] - 1)).astype(np.int64)
    places[np.r_[0, np.cumsum(drifts + 1)[:-1]]] = 0
    return places[np.lexsort((places, user))]


def _popularity(config: SyntheticConfig) -> np.ndarray:
    """Cumulative shares of a category's items by rank, as long as the largest category."""
    ranks = np.arange(1, -(-config.items // config.categories) + 1, dtype=np.float64)
    return np.cumsum(ranks**-config.popularity_exponent)


def successors(config: SyntheticConfig) -> np.ndarray:
    """int32 (items,): each item's planted successor, by a cycle through its category that is drawn from the seed."""
    random = np.random.Generator(np.random.Philox(key=[config.seed, _SUCCESSOR_SALT]))
    successor = np.empty(config.items, np.int32)
    for category in range(config.categories):
        cycle = random.permutation(np.arange(category, config.items, config.categories))
        successor[cycle] = np.roll(cycle, -1)
    return successor


@jit
def _uniform(state):
    """Next number in [0, 1) of a SplitMix64 stream (https://prng.di.unimi.it/splitmix64.c); state is (1,) uint64."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@jit
def _draw(
    offsets,
    stretches,
    changes,
    categories,
    shares,
    popularity,
    n_categories,
    n_items,
    successor,
    transitions,
    lag,
    repeat,
    basket_end,
    gap,
    seeds,
):
    """Items int32 (R,), times int64 (R,) in seconds after the start, and where each stretch begins (-1: nowhere)."""
    items = np.empty(offsets[-1], np.int32)
    times = np.empty(offsets[-1], np.int64)
    begins = np.full(stretches[-1], -1, np.int64)
    state = np.empty(1, np.uint64)
    for user in range(len(seeds)):
        state[0] = seeds[user]
        stretch = stretches[user]
        begin = offsets[user]
        time = 0
        in_basket = False
        for row in range(offsets[user], offsets[user + 1]):
            if not in_basket:
                time += 1 + np.int64(-np.log(1.0 - _uniform(state)) * gap)
                last = stretch
                while last + 1 < stretches[user + 1] and changes[last + 1] <= row - offsets[user]:
                    last += 1
                if last != stretch or row == offsets[user]:
                    stretch = last
                    begin = row
                    begins[stretch] = row
            times[row] = time
            if transitions > 0 and row - lag >= begin and _uniform(state) < transitions:
                items[row] = successor[items[row - lag]]
            elif row > begin and _uniform(state) < repeat:
                items[row] = items[begin + np.int64(_uniform(state) * (row - begin))]
            else:
                chosen = np.searchsorted(shares[stretch], _uniform(state) * shares[stretch, -1], side="right")
                category = categories[stretch, min(chosen, categories.shape[1] - 1)]
                size = (n_items - category + n_categories - 1) // n_categories
                rank = np.searchsorted(popularity[:size], _uniform(state) * popularity[size - 1], side="right")
                items[row] = category + n_categories * min(rank, size - 1)
            in_basket = _uniform(state) >= basket_end
    return items, times, begins


def _truth(
    stretches: np.ndarray, begins: np.ndarray, times: np.ndarray, categories: np.ndarray, weights: np.ndarray
) -> pa.Table:
    """Only stretches that hold an interaction: one that a basket swallowed left no trace."""
    kept = begins >= 0
    sizes = np.add.reduceat(kept.astype(np.int64), stretches[:-1])
    per_user = pa.array(np.r_[0, np.cumsum(sizes)].astype(np.int32))
    width = categories.shape[1]
    per_stretch = pa.array(np.arange(0, (int(kept.sum()) + 1) * width, width, dtype=np.int32))
    names = pa.array([word(c) for c in categories[kept].ravel()], pa.string())
    strengths = pa.array(weights[kept].ravel())

    def nested(flat: pa.Array) -> pa.Array:
        return pa.ListArray.from_arrays(per_user, pa.ListArray.from_arrays(per_stretch, flat))

    return pa.table(
        {
            "user": pa.array([f"user {u:08d}" for u in range(len(stretches) - 1)]),
            "starts": pa.ListArray.from_arrays(per_user, pa.array(times[begins[kept]])),
            "categories": nested(names),
            "weights": nested(strengths),
        }
    )
