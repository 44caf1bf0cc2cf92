"""What is packed into a page, unpacked in Python."""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uqabench.questions.scoring import read_predictions
from uqabench.report.diagnostics import diagnostic_tables
from uqabench.report.found import Found, find
from uqabench.report.page import page_of
from uqabench.report.page.columns import Columns, Texts
from uqabench.report.page.questions import Asked
from uqabench.vocabulary import LETTERS


def unpacked(text: str) -> tuple[dict[str, Any], bytes]:
    """The header and the bytes of the arrays."""
    data = gzip.decompress(base64.b64decode(text))
    length = int(np.frombuffer(data[:8], "<u8")[0])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def array(ref: dict[str, Any], data: bytes) -> np.ndarray:
    kind = {"Uint8Array": "u1", "Uint16Array": "<u2", "Uint32Array": "<u4", "Float32Array": "<f4"}[ref["type"]]
    return np.frombuffer(data, kind, ref["length"], ref["at"])


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=9), max_size=5))
def test_arrays_come_back_as_they_were(lists):
    columns = Columns()
    refs = [columns.add(np.array(values, np.int64)) for values in lists]
    header, data = unpacked(columns.packed({"name": "é", "refs": refs}))
    assert header["name"] == "é" and len(data) % 8 == 0
    for ref, values in zip(header["refs"], lists, strict=True):
        assert array(ref, data).tolist() == values
        assert ref["at"] % 8 == 0


def test_an_experiment_keeps_seeds_and_question_sets_apart(made_experiment):
    [found] = find(made_experiment)
    [text] = re.findall(r'class="results"[^>]*>([^<]+)<', page_of([found]))
    header, data = unpacked(text)
    assert [row["name"] for row in header["rows"]] == ["HSTU, short", "HSTU, long"]
    answer = array(header["questions"]["answer"], data)
    assert len(answer) == 30 + 84 and [each["history"] for each in header["sets"]] == [24, 24]
    for row, span, length in zip(header["rows"], (slice(0, 30), slice(30, 114)), ("short", "long"), strict=True):
        assert [seed["seed"] for seed in row["seeds"]] == [0, 1]
        for seed in row["seeds"]:
            given_ = array(seed["answers"], data)
            file = made_experiment.parents[1] / f"evaluate/hstu-{length}-{seed['seed']}/predictions.jsonl"
            lines = read_predictions(file)
            assert given_[span].tolist() == [LETTERS.index(line["prediction"]) for line in lines]
            assert (np.delete(given_, np.r_[span]) == 255).all()
            assert answer[span].tolist() == [LETTERS.index(line["answer"]) for line in lines]
            logits = np.array([line["logits"] for line in lines])
            expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            shown = array(seed["probabilities"], data).reshape(-1, 4) / seed["scale"]
            np.testing.assert_allclose(shown, expected, atol=1e-4)
        assert (row["latency"], row["memory"]) == (pytest.approx(100), pytest.approx(5))


def test_questions_that_came_with_the_data_are_shown_in_their_own_words(small_store, small_evaluation):
    few = small_evaluation.select(np.arange(3))
    nothing = {name: np.full_like(getattr(few, name), -1) for name in ("kind", "attribute", "option_values")}
    given_ = replace(few, **nothing, option_lengths=np.zeros_like(few.option_lengths), texts=["a?", "b?", "c?"])

    class OneSet:
        store, questions = (lambda self, content: small_store), (lambda self, content: given_)

    asked = Asked(Found("n", "t", [], Path(), {}, [], [], "letter"), OneSet())
    assert asked.first({"questions": "q", "data": "d"}) == (0, given_)
    columns, texts = Columns(), Texts()
    header, data = unpacked(columns.packed(asked.columns(columns, texts)))
    shown = {name: array(header["questions"][name], data).tolist() for name in ("kind", "level", "text", "options")}
    assert [texts.all()[number] for number in shown["text"]] == ["a?", "b?", "c?"]
    assert {texts.all()[number] for number in shown["options"]} == {""} and set(shown["level"]) == {0}
    assert {header["kinds"][kind] for kind in shown["kind"]} == {"as given"}


def test_two_seeds_have_variance_components(made_experiment):
    tables = {table.name: table for table in diagnostic_tables(find(made_experiment)[0])}
    for record in tables["variance"].records:
        shares = [value for key, value in record.items() if key.startswith("answer_")]
        assert sum(shares) == pytest.approx(100) and record["seeds"] == 2 and record["score_sd"] > 0


def test_the_page_shows_means_over_seeds(opened, made_experiment, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(page_of(find(made_experiment)), encoding="utf-8")
    page = opened(file)
    for length in ("short", "long"):
        right = [
            line["prediction"] == line["answer"]
            for seed in (0, 1)
            for line in read_predictions(
                made_experiment.parents[1] / f"evaluate/hstu-{length}-{seed}/predictions.jsonl"
            )
        ]
        row = page.locator(f'#table tr[data-row="HSTU, {length}"] td[data-scope=overall]')
        assert row.inner_text() == f"{100 * np.mean(right):.2f}"
    assert page.inner_text("#count").startswith("114 of 114")
    assert page.locator("#question .answers tbody tr").count() == 2  # a line a seed of the row that was asked
