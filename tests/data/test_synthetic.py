"""What was planted can be dug up again."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from uqabench.data import PrepareConfig, open_source, prepare
from uqabench.data.arrow import map_arrow
from uqabench.data.rejections import Rejections
from uqabench.data.sources.synthetic import SyntheticConfig, successors, word
from uqabench.errors import InputError

KEEP_ALL = PrepareConfig(min_item_interactions=1, min_user_length=1, max_sequence=10_000)


def draw(**options):
    return open_source("synthetic", **options).read(Rejections())


def test_same_seed_same_log_other_seed_other_log():
    first, same, other = (draw(users=50, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.items, same.items) and np.array_equal(first.times, same.times)
    assert len(first.items) != len(other.items) or not np.array_equal(first.items, other.items)


def test_truth_beside_the_store_explains_each_stretch(tmp_path):
    source = open_source("synthetic", users=80, mean_length=400.0, drifts=1.5, basket_size=3.0, repeat_probability=0.0)
    store = prepare(source, tmp_path / "store", KEEP_ALL, progress=False)
    truth = map_arrow(tmp_path / "store" / "truth.arrow", {"user_id": pa.string()})
    truth = pa.table(truth).to_pylist()
    assert [row["user_id"] for row in truth] == store.user_ids
    category = store.catalogue.codes["category"]
    errors, drifted = [], 0
    for user, row in enumerate(truth):
        times = store.timestamps[store.offsets[user] : store.offsets[user + 1]]
        bounds = np.searchsorted(times, row["starts"]).tolist() + [len(times)]
        assert bounds[0] == 0 and all(times[b] == s for b, s in zip(bounds, row["starts"], strict=False))
        assert len(row["starts"]) == len(row["categories"]) == len(row["weights"])
        drifted += len(row["starts"]) - 1
        for (begin, end), names, weights in zip(pairwise(bounds), row["categories"], row["weights"], strict=True):
            assert weights == sorted(weights, reverse=True) and sum(weights) == pytest.approx(1)
            found = [store.catalogue.text("category", category[item]) for item in store.sequence(user)[begin:end]]
            assert set(found) <= set(names)  # nothing outside the planted interests
            shares = [found.count(name) / len(found) for name in names]
            if end - begin >= 100:
                errors += [abs(share - weight) for share, weight in zip(shares, weights, strict=True)]
    assert drifted > 80 and len(errors) > 100
    assert np.mean(errors) < 0.03  # binomial: about 0.02 at a few hundred interactions


@pytest.mark.parametrize("lag", [1, 3])
def test_the_planted_order_is_followed_as_often_as_it_says_and_only_inside_a_stretch(lag):
    options = {"users": 150, "items": 90, "categories": 4, "mean_length": 150.0, "repeat_probability": 0.0}
    options |= {"transitions": 0.6, "transition_lag": lag}
    config, log = SyntheticConfig(**options), draw(**options)
    successor = successors(config)
    assert np.array_equal(successor % 4, np.arange(90) % 4)  # in its own category
    for category in range(4):
        item, seen = category, set()
        while item not in seen:
            seen.add(item)
            item = int(successor[item])
        assert seen == set(range(category, 90, 4))  # one cycle through all of it
    starts = np.flatnonzero(np.diff(log.users, prepend=-1))
    first_rows = np.repeat(starts, np.diff([*starts, len(log.users)]))
    rows = np.flatnonzero(np.arange(len(log.users)) - first_rows >= lag)
    for other in (1, 2, 3):
        rows_of = rows[np.arange(len(log.users))[rows] - first_rows[rows] >= other]
        followed = (log.items[rows_of] == successor[log.items[rows_of - other]]).mean()
        # Beyond the planted share, some follow by chance; short of it, a drift breaks the order.
        assert (0.55 < followed < 0.68) if other == lag else followed < 0.3


def test_without_an_order_the_log_is_what_it_is_without_the_setting():
    plain, none = draw(users=60), draw(users=60, transitions=0.0, transition_lag=5)
    assert np.array_equal(plain.items, none.items) and np.array_equal(plain.times, none.times)


def test_popularity_follows_zipf():
    log = draw(
        users=400, items=200, categories=2, interests=1, repeat_probability=0.0, popularity_exponent=1.2, drifts=0
    )
    counts = np.bincount(log.items, minlength=200)
    ranked = counts.reshape(-1, 2).sum(1)[:20]  # item i has rank i // 2 in category i % 2
    slope = np.polyfit(np.log(np.arange(1, 21)), np.log(ranked), 1)[0]
    assert slope == pytest.approx(-1.2, abs=0.06)


@pytest.mark.parametrize("probability", [0.0, 0.4, 1.0])
def test_repeats(probability):
    log = draw(
        users=200, items=400_000, categories=4, popularity_exponent=0.0, repeat_probability=probability, drifts=0
    )
    new = len(np.unique(log.users.astype(np.int64) * 400_000 + log.items))
    later = len(log.items) - 200  # a user's first interaction cannot repeat
    assert (len(log.items) - new) / later == pytest.approx(probability, abs=0.02)


def test_baskets_and_gaps():
    log = draw(users=300, basket_size=4.0, mean_gap=3600.0, drifts=0)
    first_of_user = np.r_[True, np.diff(log.users) > 0]
    begins = first_of_user | np.r_[True, np.diff(log.times) != 0]
    assert len(log.times) / begins.sum() == pytest.approx(4.0, rel=0.05)
    gaps = np.diff(log.times[begins])[~first_of_user[begins][1:]] / 1e6
    assert gaps.min() >= 1 and gaps.mean() == pytest.approx(3600, rel=0.05)


def test_lengths_and_interests():
    log = draw(users=3000, mean_length=50.0, length_spread=0.5, concentration=0.1, drifts=0, interests=2)
    lengths = np.bincount(log.users)
    assert lengths.mean() == pytest.approx(50, rel=0.03)
    assert np.log(lengths).std() == pytest.approx(0.5, rel=0.05)
    strongest = [weights[0][0] for weights in log.truth["weights"].to_pylist()]
    assert np.mean(strongest) > 0.9  # a small concentration lets one interest dominate


def test_attributes():
    log = draw(items=300, categories=7, brands_per_category=3, shops=0, sellers=4)
    columns = {name: column.to_pylist() for name, column in log.attributes.items()}
    assert set(columns) == {"title", "category", "brand", "seller"}
    assert len(set(columns["category"])) == 7 and len(set(columns["title"])) == 300
    owner = {}
    for brand, category in zip(columns["brand"], columns["category"], strict=True):
        assert owner.setdefault(brand, category) == category
    for title, brand, category in zip(*(columns[n] for n in ("title", "brand", "category")), strict=True):
        assert title.split()[:2] == [brand, category]
    assert len({word(i) for i in range(10_000)}) == 10_000


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"users": 1}, "users is 1"),
        ({"users": 2.5}, "users must be of type int, not 2.5"),
        ({"interests": 30}, "interests is 30, above categories 20"),
        ({"categories": 3000}, "categories is 3000, above items"),
        ({"concentration": 0}, "concentration is 0"),
        ({"repeat_probability": 1.5}, "repeat_probability is 1.5"),
        ({"basket_size": 0.5}, "basket_size is 0.5"),
        ({"mean_gap": float("nan")}, "mean_gap is nan"),
        ({"path": "somewhere"}, "reads no files"),
    ],
)
def test_settings_are_checked(options, name):
    with pytest.raises(InputError, match=name):
        open_source("synthetic", **options)
