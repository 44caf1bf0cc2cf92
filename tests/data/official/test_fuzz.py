"""Published files that were damaged at random: one sentence or counted rows, whatever the bytes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.damage import CASES, quick
from uqabench.data.official.factor import Texts
from uqabench.data.official.reading import Reading
from uqabench.data.rejections import Rejections
from uqabench.errors import InputError

from . import conftest as by_hand

TEXTS = Texts([bytes([i % 256]) for i in range(151_643)])


def published() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        made = by_hand.PublishedFolder(Path(folder), users=3)
        made.asked = {side: asked[:4] for side, asked in made.asked.items()}
        made.write()
        return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


GOOD = published()


def check(files: dict[str, bytes]) -> None:
    """Reading ends in a store that fits together, or in one fit sentence."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        rejections = Rejections()
        try:
            reading = Reading(Path(folder), rejections, TEXTS)
            store, questions, _ = reading.store()
        except InputError as error:
            message = str(error).replace(folder, "")
            assert len(message) < 500 and message.isprintable(), message
            return
        if len(store) and len(store.items):
            store.validate()
        catalogue = store.catalogue
        for name, codes in catalogue.codes.items():
            assert codes.min(initial=-1) >= -1 and codes.max(initial=-1) < len(catalogue.values[name])
            assert catalogue.tokens[name][1].max(initial=0) < 151_936
        for asked in questions.values():
            assert ((asked.cut >= 1) & (asked.cut <= store.lengths[asked.user])).all()
        assert sum(rejections.counts.values()) <= 100


@st.composite
def damaged(draw) -> dict[str, bytes]:
    """One file with bits flipped, a piece missing, or cut short."""
    name = draw(st.sampled_from(sorted(GOOD)))
    content = bytearray(GOOD[name])
    for _ in range(draw(st.integers(1, 5))):
        if not content:
            break
        place, kind = (
            draw(st.integers(0, len(content) - 1)),
            draw(st.sampled_from(("flip", "flip", "set", "cut", "drop"))),
        )
        if kind == "flip":
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            content[place : place + 8] = draw(st.sampled_from((b"\xff" * 8, b"\0" * 8, b"\0\0\0\x80\0\0\0\0")))
        elif kind == "cut":
            del content[place:]
        else:
            del content[place : place + draw(st.integers(1, 64))]
    return {**GOOD, name: bytes(content)}


@settings(quick, max_examples=CASES // 4)
@given(damaged())
def test_damaged_files(files):
    check(files)


IDS = st.lists(
    st.none() | st.integers(0, 9) | st.sampled_from([-1, 2**31, 2**62, -(2**63), 151_935, 151_936]), max_size=3
)
LISTS = st.none() | st.lists(st.none() | IDS, max_size=4)
ITEMS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=1), max_size=4)


@st.composite
def rows(draw) -> list:
    """Rows of ten columns, most of one length, anything in some."""
    row = []
    first = draw(ITEMS)
    for column in range(10):
        other = draw(st.integers(0, 12)) == 0
        if other:
            row.append(draw(LISTS))
        elif column < 5:
            row.append(first if column == 0 else [draw(st.lists(st.integers(0, 9), max_size=1)) for _ in first])
        else:
            row.append([draw(st.lists(st.integers(0, 99), max_size=3)) for _ in first])
    return row


TEXT = st.none() | st.text(max_size=6) | st.sampled_from(
    [by_hand.message(by_hand.QUESTIONS["df"], "A"), by_hand.message("?", "A"), "[]", "{}", "[1]", '[{"role": 1}]']
)  # fmt: skip


@settings(quick, max_examples=CASES // 4)
@given(st.lists(rows(), max_size=4), st.lists(st.tuples(rows(), TEXT), max_size=4), st.sampled_from(("train", "eval")))
def test_lists_of_any_shape(sequences, asked, side):
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "a.arrow", Path(folder) / "b.arrow"
        by_hand.write_file(first, sequences, batch=2)
        by_hand.write_file(second, [row for row, _ in asked], [text for _, text in asked], batch=2)
        changed = {f"pretrain_data_{side}.arrow": first.read_bytes(), f"align_data_{side}.arrow": second.read_bytes()}
    check({**GOOD, **changed})


def test_a_sequence_of_a_million_is_no_sequence_past_the_limit(tmp_path):
    made = by_hand.PublishedFolder(tmp_path, users=2)
    made.asked = {"train": [], "eval": []}
    made.write()
    n = 2**20
    for length, rejected in ((n, {}), (n + 1, {"malformed row": 1})):
        offsets = pa.array([0, length], pa.int32())
        ids = pa.ListArray.from_arrays(pa.array(np.arange(length + 1), pa.int32()), pa.array(np.arange(length) % 7))
        columns = [pa.ListArray.from_arrays(offsets, ids)] * 10
        batch = pa.record_batch(columns, names=by_hand.COLUMNS)
        path = tmp_path / f"{length}"
        path.mkdir()
        for file in tmp_path.glob("*.arrow"):
            (path / file.name).write_bytes(file.read_bytes())
        (path / "pretrain_data_train.arrow").unlink()
        with (
            pa.OSFile(str(path / "pretrain_data_train.arrow"), "wb") as sink,
            pa.ipc.new_file(sink, batch.schema) as to,
        ):
            to.write_batch(batch)
        rejections = Rejections()
        store = Reading(path, rejections, TEXTS).store()[0]
        assert rejections.summary() == rejected
        assert store.lengths.max() == (n if not rejected else max(map(len, made.evaluation)))


def test_files_without_rows(tmp_path):
    made = by_hand.PublishedFolder(tmp_path, users=2)
    made.train, made.asked = [], {"train": [], "eval": []}
    made.write()
    assert len(Reading(tmp_path, Rejections(), TEXTS).store()[0]) == len(made.evaluation)
