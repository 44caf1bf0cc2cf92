"""The synthetic log of the paper's size: sizes, laws, and that nothing depends on how it is drawn."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from uqabench.data import InteractionStore, PrepareConfig, open_source, prepare
from uqabench.data.rejections import Rejections
from uqabench.data.sources import paper_scale
from uqabench.data.sources.paper_scale import INTERACTIONS, ITEMS, USERS, PaperScale
from uqabench.errors import InputError

FRACTION = 0.004


@pytest.fixture(scope="module")
def log():
    return open_source("synthetic", scale=FRACTION).read(Rejections())


def test_sizes_are_the_paper_s_times_the_fraction(log):
    assert len(log.user_ids) == round(USERS * FRACTION) and len(log.item_ids) == round(ITEMS * FRACTION)
    assert len(log.items) == round(INTERACTIONS * FRACTION)
    assert open_source("synthetic", scale="paper").scaled.lengths().sum() == INTERACTIONS


def test_lengths_lie_between_5_and_512_in_no_order(log):
    lengths = np.bincount(log.users)
    assert lengths.min() >= 5 and lengths.max() == 512
    assert abs(np.corrcoef(np.arange(len(lengths)), lengths)[0, 1]) < 0.1


def test_few_items_take_many_interactions(log):
    counts = np.sort(np.bincount(log.items, minlength=len(log.item_ids)))[::-1]
    top = counts[: len(counts) // 10].sum() / counts.sum()
    assert 0.25 < top < 0.75


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_chunk_depends_on_its_place_alone(workers, monkeypatch, log):
    monkeypatch.setattr(paper_scale, "CHUNK", 100)
    scaled = PaperScale(FRACTION)
    chunks = list(scaled.chunks(workers))
    assert len(chunks) == 8 and [chunk.users[0] for chunk in chunks] == list(range(0, 738, 100))
    alone = scaled._chunk(300, scaled.lengths(), *_laws(scaled))
    assert np.array_equal(chunks[3].items, alone.items) and np.array_equal(chunks[3].times, alone.times)
    assert chunks[3].truth.equals(alone.truth)
    assert all((np.diff(chunk.times)[np.diff(chunk.users) == 0] >= 0).all() for chunk in chunks)


def _laws(scaled):
    popularity = paper_scale.popularity(scaled.config)
    exponent = paper_scale._CATEGORY_EXPONENT
    return popularity, np.cumsum(np.arange(1, scaled.config.categories + 1, dtype=np.float64) ** -exponent)


def test_the_planted_categories_are_those_found(tmp_path):
    store = prepare(open_source("synthetic", scale=0.001), tmp_path / "s", PrepareConfig(), progress=False)
    truth = pa.ipc.open_file(tmp_path / "s" / "truth.arrow").read_all().to_pylist()
    category = store.catalogue.codes["category"]
    for user, row in enumerate(truth[:40]):
        planted = {name for names in row["categories"] for name in names}
        assert {store.catalogue.text("category", category[item]) for item in store.sequence(user)} <= planted
        assert all(len(set(names)) == 5 for names in row["categories"])
    assert len(InteractionStore.open(tmp_path / "s")) == len(store) > 150


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": "big"}, "scale is 'big' and should be paper or a fraction"),
        ({"scale": 0}, "scale is 0.0 and should be"),
        ({"scale": True}, "scale is True and should be"),
        ({"scale": 1e-5}, r"from 0.0005 \(100 users\)"),
        ({"scale": 0.01, "users": 10}, "With scale, 'users' follows from the paper's data"),
    ],
)
def test_what_is_no_scale_is_said(options, words):
    with pytest.raises(InputError, match=words):
        open_source("synthetic", **options)
