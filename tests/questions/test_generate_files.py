"""Question sets on disk."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from uqabench.errors import InputError
from uqabench.questions.questions import QuestionSet

COLUMNS = ("user", "cut", "subtask", "kind", "template", "attribute", "params", "option_values", "answer")


@pytest.fixture
def saved(grocery_questions, tmp_path):
    path = tmp_path / "questions.arrow"
    grocery_questions[0].save(path)
    return path


def test_what_is_saved_is_opened(grocery_questions, saved):
    questions, again = grocery_questions[0], QuestionSet.open(saved)
    for name in (*COLUMNS, "option_lengths"):
        np.testing.assert_array_equal(getattr(again, name), getattr(questions, name))
        assert getattr(again, name).dtype == getattr(questions, name).dtype
    assert (again.n_history, again.split, again.split_hash) == (128, "evaluation", questions.split_hash)
    assert again.options(5) == questions.options(5)
    assert not again.user.flags.writeable  # a view of the file
    first = saved.read_bytes()
    again.save(saved)
    assert saved.read_bytes() == first


def test_options_are_ragged_lists_in_the_file(grocery_questions, saved):
    batch = pa.ipc.open_file(pa.memory_map(str(saved))).get_batch(0)
    assert batch.schema.field("options").type == pa.list_(pa.list_(pa.int32()), 4)
    for i in (0, 700, 1399):
        assert [tuple(option) for option in batch["options"][i].as_py()] == grocery_questions[0].options(i)


def test_select_keeps_rows_together(grocery_questions):
    questions = grocery_questions[0]
    mask = questions.subtask == 4
    chosen = questions.select(mask)
    assert len(chosen) == mask.sum() and chosen.n_history == questions.n_history
    assert chosen.options(3) == questions.options(int(np.flatnonzero(mask)[3]))
    empty = questions.select(np.zeros(len(questions), bool))
    assert len(empty) == 0


def test_an_empty_set_can_be_saved(grocery_questions, tmp_path):
    grocery_questions[0].select([]).save(tmp_path / "none.arrow")
    assert len(QuestionSet.open(tmp_path / "none.arrow")) == 0


@pytest.mark.parametrize("keep", [0, 10, 3000, -1])
def test_truncated_files_are_named(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"questions.arrow is truncated or corrupted"):
        QuestionSet.open(saved)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(InputError, match="absent.arrow does not exist"):
        QuestionSet.open(tmp_path / "absent.arrow")
    batch = pa.record_batch({"user": pa.array([1])})
    with pa.OSFile(str(tmp_path / "other.arrow"), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(InputError, match="other.arrow is an Arrow file but holds no questions"):
        QuestionSet.open(tmp_path / "other.arrow")


@pytest.mark.parametrize(("key", "value"), [(b"version", b"99"), (b"kinds", b"df_last")])
def test_other_versions_are_named(saved, key, value):
    batch = pa.ipc.open_file(saved.read_bytes()).get_batch(0)
    batch = batch.replace_schema_metadata({**batch.schema.metadata, key: value})
    with pa.OSFile(str(saved), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(InputError, match="another version of uqabench"):
        QuestionSet.open(saved)


@pytest.mark.parametrize(("column", "value"), [("answer", 4), ("subtask", 7), ("kind", 99), ("cut", 0)])
def test_values_past_their_range_are_named(saved, column, value):
    batch = pa.ipc.open_file(saved.read_bytes()).get_batch(0)
    place = batch.schema.get_field_index(column)
    changed = batch.column(place).to_numpy().copy()
    changed[17] = value
    batch = batch.set_column(place, batch.schema.field(place), pa.array(changed))
    with pa.OSFile(str(saved), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(InputError, match=f"column '{column}', row 17"):
        QuestionSet.open(saved)
