"""What a prompt shows: exactly the allowed history, the soft slots, the chat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from uqabench.errors import InputError
from uqabench.llm.prompts import SOFT, PromptBuilder, PromptConfig, PromptText
from uqabench.questions.render import format_question, render

HEADER = "History:"


@pytest.fixture
def text(small_store, templates):
    return PromptText(small_store, templates, PromptConfig())


def lines_of(content):
    """The history's lines of a message, between the header and the question."""
    return content.split("\n")[1:]


@pytest.mark.parametrize("n_text", [1, 5, 20, 50])
def test_a_text_history_is_the_last_items_of_h(text, small_store, small_evaluation, n_text):
    """Also the leak test: s[cut] and later never stand in the text, nor anything before h."""
    questions = small_evaluation
    assert n_text < 24 or (questions.cut > questions.n_history).any()
    for row in range(len(questions)):
        user, cut = int(questions.user[row]), int(questions.cut[row])
        sequence = small_store.sequence(user)
        allowed = sequence[max(0, cut - min(n_text, questions.n_history)) : cut]
        asked = format_question(render(questions, row, small_store.catalogue, "en"))
        content = text.content(questions, row, n_text)
        assert content == "\n".join([HEADER, *(text.item_line(int(item)) for item in allowed), asked])
        assert len(allowed) == min(n_text, 24, cut)


def test_text_does_not_depend_on_the_future(small_store, small_evaluation, templates):
    """Every item from the cut on replaced by another: not a letter of any prompt changes, options aside."""
    questions = small_evaluation
    before = PromptText(small_store, templates, PromptConfig())
    for row in range(0, len(questions), 7):
        user, cut = int(questions.user[row]), int(questions.cut[row])
        items = small_store.items.copy()
        begin, end = int(small_store.offsets[user]) + cut, int(small_store.offsets[user + 1])
        items[begin:end] = (items[begin:end] + 1) % len(small_store.catalogue)
        after = PromptText(replace(small_store, items=items), templates, PromptConfig())
        assert end > begin
        assert after.history_text(user, cut, 50) == before.history_text(user, cut, 50)


def test_no_history_is_the_question_alone(text, small_store, small_evaluation):
    content = text.content(small_evaluation, 0, 0)
    assert content == format_question(render(small_evaluation, 0, small_store.catalogue, "en"))


@pytest.mark.parametrize(("language", "cue"), [("en", "Answer"), ("zh", "回答")])
def test_languages(small_store, small_evaluation, templates, language, cue):
    text = PromptText(small_store, templates, PromptConfig(language=language))
    shown = text.content(small_evaluation, 0, 3)
    assert shown == "\n".join(
        [
            text.history_text(int(small_evaluation.user[0]), int(small_evaluation.cut[0]), 3),
            format_question(render(small_evaluation, 0, small_store.catalogue, language)),
        ]
    )
    assert any("\u4e00" <= letter <= "\u9fff" for letter in shown) == (language == "zh")


def test_attributes_choose_what_is_said_of_an_item(small_store, templates):
    text = PromptText(small_store, templates, PromptConfig(attributes=("brand",), history_header="Seen:"))
    code = int(small_store.catalogue.codes["brand"][3])
    assert text.item_line(3) == small_store.catalogue.text("brand", code)
    assert text.history_text(0, 2, 1).startswith("Seen:\n")
    wrong = PromptText(small_store, templates, PromptConfig(attributes=("colour",)))
    with pytest.raises(InputError, match="no attribute 'colour'"):
        wrong.item_line(0)


def test_soft_slots_stand_before_the_chat_or_before_the_question(small_lm, small_store, small_evaluation, templates):
    def encode(place, n_soft):
        builder = PromptBuilder(small_lm, small_store, templates, PromptConfig(soft_prompt_place=place))
        return builder.encode(small_evaluation, np.arange(6), n_soft=n_soft)

    plain = encode("before-chat", 0)
    head = small_lm.encode([small_lm.chat_before])[0]
    assert head and all(SOFT not in ids for ids in plain)
    for ids, front, inside in zip(plain, encode("before-chat", 4), encode("before-question", 4), strict=True):
        assert front.tolist() == [SOFT] * 4 + ids.tolist()
        assert inside[: len(head) + 4].tolist() == head + [SOFT] * 4
        assert small_lm.tokenizer.decode(inside[len(head) + 4 :]) == small_lm.tokenizer.decode(ids[len(head) :])


def test_prompts_end_where_the_answer_begins(small_lm, small_store, small_evaluation, templates):
    builder = PromptBuilder(small_lm, small_store, templates, PromptConfig())
    rows = np.array([5, 2])
    for row, ids in zip(rows, builder.encode(small_evaluation, rows, n_text=4), strict=True):
        expected = small_lm.prompt_text(builder.content(small_evaluation, int(row), 4))
        assert small_lm.encode([expected])[0] == ids.tolist() and expected.endswith("<|assistant|>")


def test_an_unknown_place_is_named():
    with pytest.raises(InputError, match="soft_prompt_place is 'inside': choose one of before-chat, before-question"):
        PromptConfig(soft_prompt_place="inside")
