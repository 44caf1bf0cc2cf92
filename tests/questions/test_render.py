"""Questions, options and items as text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from uqabench.errors import InputError
from uqabench.questions.kinds import KIND_INDEX
from uqabench.questions.questions import QuestionSet
from uqabench.questions.render import format_question, render, render_item, value_text, value_texts
from uqabench.vocabulary import LETTERS

from .conftest import make_store

STORE = make_store(
    [[0, 1, 2, 3], [3, 2, 1, 0]],
    [0, 1],
    {
        "title": ["green tea", "whole milk", "rye bread", "rice"],
        "category": ["drinks", "drinks", "bakery", None],
        "brand": ["Ki", "Alm", "Müller", "Ki"],
        "shop": ["north", "south", "north", "east"],
    },
)


def question(name, options, param=0, attribute=2, template=0):
    values = np.full((1, 4, 3), -1, np.int32)
    for place, option in enumerate(options):
        values[0, place, : len(option)] = option
    return QuestionSet(
        user=np.zeros(1, np.int32),
        cut=np.ones(1, np.int32),
        subtask=np.zeros(1, np.int8),
        kind=np.array([KIND_INDEX[name]], np.int16),
        template=np.array([template], np.int16),
        attribute=np.array([attribute], np.int8),
        params=np.array([[param, 0, 0, 0]], np.int32),
        option_values=values,
        option_lengths=np.array([[len(option) for option in options]], np.int8),
        answer=np.zeros(1, np.int8),
        n_history=8,
    )


BRANDS = STORE.catalogue.values["brand"]
ALM, KI, MULLER = (BRANDS.index(name) for name in ("Alm", "Ki", "Müller"))


@pytest.mark.parametrize(
    ("name", "param", "lang", "expected"),
    [
        ("df_last", 1, "en", "What is the brand of the user's last item?"),
        ("df_last", 3, "en", "What is the brand of the user's third to last item?"),
        ("df_last", 2, "zh", "用户倒数第2次浏览的商品的品牌是什么？"),
        ("df_nth", 2, "en", "What is the brand of the 2nd item in the history?"),
        ("df_nth", 11, "en", "What is the brand of the 11th item in the history?"),
        ("df_nth", 21, "en", "What is the brand of the 21st item in the history?"),
        ("df_nth", 3, "zh", "用户第3次（从1开始计数）浏览的商品，其品牌是什么？"),
        ("df_list", 3, "en", "What are the brand values of the user's last 3 items?"),
        ("mf_count", MULLER, "en", 'How many items in the history have the brand "Müller"?'),
        ("mf_count", MULLER, "zh", "用户的历史行为中，品牌为“Müller”的商品有多少个？"),
        ("si_recent", 10, "en", "Which brand interests the user most recently (last 10 items)?"),
        ("it_path", 0, "zh", "用户对品牌偏好的转移路径是什么？"),
    ],
)
def test_questions_in_words(name, param, lang, expected):
    one = question(name, [(ALM,), (KI,), (MULLER,), (1,)], param)
    assert render(one, 0, STORE.catalogue, lang).question == expected


def test_phrasings_turn_with_the_template_number():
    said = {render(question("mf_length", [(1,)] * 4, template=t), 0, STORE.catalogue).question for t in range(3)}
    assert len(said) == 3
    again = render(question("mf_length", [(1,)] * 4, template=3), 0, STORE.catalogue).question
    assert again == render(question("mf_length", [(1,)] * 4, template=0), 0, STORE.catalogue).question


def test_options_in_words():
    counts = render(question("mf_count", [(1,), (2,), (3,), (4,)]), 0, STORE.catalogue)
    assert counts.options == ["1", "2", "3", "4"] and counts.instruction == ""
    lists = render(question("li_top3", [(ALM, KI, MULLER)] * 4), 0, STORE.catalogue)
    assert lists.options[0] == "Alm; Ki; Müller" and "interest" in lists.instruction
    paths = question("it_path", [(ALM,), (ALM, KI), (ALM, KI, ALM), (KI,)])
    assert render(paths, 0, STORE.catalogue).options == [
        "Alm (no change)",
        "Alm → Ki",
        "Alm → Ki → Alm",
        "Ki (no change)",
    ]
    assert render(paths, 0, STORE.catalogue, "zh").options[0] == "Alm（无变化）"


def test_a_question_as_one_message():
    lists = question("df_list", [(ALM, KI), (KI, ALM), (KI, KI), (ALM, ALM)], 2)
    assert format_question(render(lists, 0, STORE.catalogue)) == (
        "What are the brand values of the user's last 2 items? Several answers are in time order, the oldest first.\n"
        "A. Alm; Ki\nB. Ki; Alm\nC. Ki; Ki\nD. Alm; Alm\nAnswer:"
    )
    chinese = format_question(render(lists, 0, STORE.catalogue, "zh")).splitlines()
    assert chinese[-1] == "答案：" and [line[0] for line in chinese[1:5]] == list(LETTERS)


def test_items_as_lines():
    assert render_item(STORE.catalogue, 2) == "rye bread | bakery | Müller | north"
    assert render_item(STORE.catalogue, 3) == "rice | Ki | east"  # lacks a category
    assert render_item(STORE.catalogue, 2, ("brand", "title"), "zh") == "Müller | rye bread"
    with pytest.raises(InputError, match="no attribute 'colour'"):
        render_item(STORE.catalogue, 2, ("colour",))


def test_unknown_languages_and_foreign_codes_are_named():
    one = question("ap_next", [(ALM,), (KI,), (MULLER,), (99,)])
    with pytest.raises(InputError, match="no templates in language 'de'"):
        render(one, 0, STORE.catalogue, "de")
    with pytest.raises(InputError, match="Code 99 is past the 3 values of 'brand'"):
        render(one, 0, STORE.catalogue)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("ball pen blue", "ball pen blue"),
        ("two\nlines", "two lines"),
        (" a\t b\r\n\u2028c\u2029 \x85d\x00e ", "a b c d e"),
        ("caf\u00e9 \u4e2d\u6587", "caf\u00e9 \u4e2d\u6587"),
        ("half\ud800", "half"),
    ],
)
def test_a_value_is_one_line(value, shown):
    catalogue = replace(STORE.catalogue, values={**STORE.catalogue.values, "title": [value] * 4})
    assert value_text(catalogue, "title", 3) == shown == value_texts(catalogue, "title")[0]
    assert render_item(catalogue, 0, ("title",)) == shown
