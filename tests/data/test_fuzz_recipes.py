"""Logs of an object a line and of `::` columns, damaged at random: one sentence or counted rows, whatever the bytes."""

from __future__ import annotations

import gzip
import json
import tempfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data import damage
from tests.data.damage import CASES, quick
from uqabench.data import open_source
from uqabench.data.rejections import Rejections
from uqabench.data.sources.lines import read_lines
from uqabench.errors import InputError

SECRET = "alice@example.org"
HOSTILE = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b":", b"::", b",", b"\n", b"\r", b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80",
    b"\\ud800", b"null", b"NaN", b"1e999", b"9" * 40, b"-", b"true", b"\x1f", b"[" * 2000, b"\xe2\x80\xa8", b"'", b"u'",
]  # fmt: skip
damaged = partial(damage.damaged, pieces=HOSTILE, least=0)

REVIEWS = "\n".join(
    json.dumps({"user_id": user, "parent_asin": item, "timestamp": 1588687728923 + i, "rating": 5.0, "text": "é\u2028"})
    for i, (user, item) in enumerate([(SECRET, "B0"), (SECRET, "B1"), ("u2", "B0"), ("u3", "B2")])
).encode()  # fmt: skip
META = json.dumps({"parent_asin": "B0", "title": "A thing", "categories": ["a", "b"], "store": None}).encode() + b"\n"
STEAM = repr({"username": SECRET, "product_id": "7", "date": "2017-12-17", "hours": 1.5}).encode() + b"\n"
GAMES = repr({"id": "7", "app_name": "Kart", "genres": ["Action"]}).encode() + b"\n"
RATINGS = f"{SECRET}::1193::5::978300760\n{SECRET}::661::3::978302109\n2::1193::4::978298413\n".encode()
MOVIES = "661::James and the Giant Peach (1996)::Animation|Children's\n1193::Misérables, Les::Drama\n".encode("latin-1")
LOGS = {
    "amazon-2023": ("A.jsonl", REVIEWS, "meta_A.jsonl", META),
    "steam": ("steam_reviews.json", STEAM * 3, "steam_games.json", GAMES),
    "movielens-1m": ("ratings.dat", RATINGS, "movies.dat", MOVIES),
}


def check(name: str, clicks: bytes, items: bytes, packed: bool) -> None:
    """Reading ends in rows and counted rejections, or in one fit sentence."""
    with tempfile.TemporaryDirectory() as folder:
        click_file, _, item_file, _ = LOGS[name]
        (Path(folder) / (click_file + ".gz" * packed)).write_bytes(clicks)
        (Path(folder) / item_file).write_bytes(items)
        rejections = Rejections()
        try:
            log = open_source(name, folder).read(rejections)
        except InputError as error:
            message = str(error).replace(folder, "")
            assert len(message) < 500 and message.isprintable() and SECRET not in message, message
            return
        assert len(log.users) == len(log.items) == len(log.times)
        assert log.users.min(initial=0) >= 0 and log.users.max(initial=-1) < len(log.user_ids)
        assert log.items.min(initial=0) >= 0 and log.items.max(initial=-1) < len(log.item_ids)
        ids = [item for item in log.item_ids.to_pylist() if item is not None]
        assert len(set(ids)) == len(ids)
        assert all(len(column) == len(log.item_ids) for column in log.attributes.values())
        assert all(SECRET not in str(line) for line in rejections.listed)


@settings(quick, max_examples=CASES // 2)
@given(st.sampled_from(("amazon-2023", "steam")), st.data(), st.booleans())
def test_damaged_lines(name, data, packed):
    clicks, items = data.draw(damaged(LOGS[name][1])), data.draw(damaged(LOGS[name][3]))
    if packed:
        clicks = data.draw(damaged(gzip.compress(clicks)))
    check(name, clicks, items, packed)


def test_null_is_no_object_wherever_it_stands(tmp_path):
    (tmp_path / "items.jsonl").write_bytes(b'{"a": "x"}\nnull\n{"a": "y"}\n')
    rows = read_lines(tmp_path / "items.jsonl", "json", {"name": "a"}, {})
    assert rows.columns["name"].to_pylist() == ["x", "y"] and rows.malformed == [2]


@pytest.mark.parametrize("line", [b"null", b"null\nnull\n", b"[1]", b"1", b'"a"', b'null\n{"parent_asin": "a"}'])
def test_lines_that_are_no_objects(line):
    check("amazon-2023", REVIEWS, line, packed=False)
    check("amazon-2023", line, META, packed=False)


@settings(quick, max_examples=CASES * 3 // 10)
@given(damaged(RATINGS), damaged(MOVIES))
def test_damaged_double_colons(clicks, items):
    check("movielens-1m", clicks, items, packed=False)
