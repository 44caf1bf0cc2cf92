"""Version 2: the order of items that share a timestamp is no fact, and ip and ap are asked at two levels."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uqabench.errors import InputError
from uqabench.questions.baselines import predict, right_answers, right_options
from uqabench.questions.generate import build_context, generate
from uqabench.questions.kinds import ASKED, KIND_INDEX, KINDS, kinds
from uqabench.questions.questions import QuestionSet
from uqabench.questions.render import render
from uqabench.settings import QuestionConfig
from uqabench.vocabulary import SUBTASKS

from .conftest import EQUAL_MIX, make_store, random_store

WISH = QuestionConfig(
    version="v2", n_questions=140, default_mix=EQUAL_MIX, history=24, min_history=8, recent_window=6, seed=3
)


def shuffled_inside_baskets(store, questions, i, rng):
    """The store with another order inside every basket of h (of the first one, what h holds of it) and inside the next
    basket of question i."""
    user, cut = int(questions.user[i]), int(questions.cut[i])
    first = max(0, cut - questions.n_history)
    starts = store.basket_starts(user)
    bounds = [first, *(np.flatnonzero(starts[first + 1 :]) + first + 1).tolist(), len(starts)]
    items = store.items.copy()
    for lo, hi in zip(bounds[:-1], bounds[1:], strict=True):
        span = slice(int(store.offsets[user]) + lo, int(store.offsets[user]) + hi)
        items[span] = rng.permutation(items[span])
    return dataclasses.replace(store, items=items)


@settings(max_examples=8)
@given(
    seed=st.integers(0, 10_000),
    items=st.integers(8, 60),
    categories=st.integers(2, 6),
    missing=st.sampled_from([0.0, 0.2]),
    history=st.integers(8, 40),
)
def test_every_order_inside_baskets_has_the_same_right_option_and_no_other(seed, items, categories, missing, history):
    store = random_store(seed, 20, items, categories, 60, missing)
    config = dataclasses.replace(WISH, n_questions=42, history=history, seed=seed)
    try:
        questions, _ = generate(store, "train", config)
    except InputError as error:
        assert "No question is possible" in str(error)
        return
    rng = np.random.default_rng(seed)
    for i in range(len(questions)):
        for _ in range(3):
            assert right_options(questions, shuffled_inside_baskets(store, questions, i, rng), i) == [
                questions.answer[i]
            ]


def test_other_orders_do_change_the_answers_of_version_1():
    """What the test above would find."""
    store = random_store(5, 20, 40)
    questions, _ = generate(store, "train", dataclasses.replace(WISH, version="v1"))
    rng = np.random.default_rng(0)
    moved = [
        right_options(questions, shuffled_inside_baskets(store, questions, i, rng), i) != [questions.answer[i]]
        for i in range(len(questions))
    ]
    wrong = {SUBTASKS[sub] for sub in questions.subtask[moved]}
    assert {"df", "ip", "ap"} <= wrong <= {"df", "ip", "ap", "si", "it"}


# One user: tea milk | bread | tea tea | milk milk | bread, and then tea rice.
SEQUENCE, TIMES = [0, 1, 2, 0, 0, 1, 1, 2, 0, 3], [1, 1, 2, 3, 3, 4, 4, 5, 6, 6]
STORE = make_store([SEQUENCE], [0], {"category": ["tea", "milk", "bread", "rice"]}, [TIMES])


@pytest.mark.parametrize(
    ("name", "params", "n_history", "expected"),
    [
        ("df_basket", [1], 24, [["bread"]]),
        ("df_basket", [2], 24, [["milk"], ["milk"]]),
        ("df_basket", [5], 24, [["tea"], ["milk"]]),
        ("df_basket", [5], 7, [["milk"]]),  # the history holds the second half of the first basket
        ("df_position", [3, 8], 24, [["bread"]]),
        ("ip_natural", [], 24, [["tea"], ["rice"]]),
        ("ap_matched", [], 24, [["tea"], ["rice"]]),
        ("it_baskets", [], 24, []),  # tea milk bread | tea tea | milk milk bread: the first third is open
        ("it_baskets", [], 5, [["tea", "milk", "bread"]]),
        (
            "it_baskets",
            [],
            6,
            [["bread", "tea", "milk"]],
        ),  # 2 lies between 1 and 3, 4 between 3 and 5: the earlier ones
    ],
)
def test_right_answers_worked_out_by_hand(name, params, n_history, expected):
    kind = KINDS[KIND_INDEX[name]]
    one = QuestionSet(
        user=np.zeros(1, np.int32),
        cut=np.array([8], np.int32),
        subtask=np.array([SUBTASKS.index(kind.subtask)], np.int8),
        kind=np.array([KIND_INDEX[name]], np.int16),
        template=np.zeros(1, np.int16),
        attribute=np.ones(1, np.int8),
        params=np.array([[*params, 0, 0, 0, 0][:4]], np.int32),
        option_values=np.array([[[value, -1, -1] for value in range(4)]], np.int32),
        option_lengths=np.ones((1, 4), np.int8),
        answer=np.zeros(1, np.int8),
        n_history=n_history,
        version="v2",
    )
    assert right_answers(one, STORE, 0) == expected


@pytest.fixture(scope="module")
def grocery_v2(grocery):
    """Questions of version 2 about training users, and the settings they were made with."""
    config = QuestionConfig(version="v2", n_questions=4900, mix=EQUAL_MIX, history=128, seed=8)
    return *generate(grocery, "train", config), config


def names_of(questions):
    return np.array([KINDS[kind].name for kind in questions.kind])


def test_nothing_is_taken_out_of_balance_and_the_oracle_scores_100(grocery, grocery_v2):
    questions, report, _ = grocery_v2
    assert report.counts == dict.fromkeys(SUBTASKS, 700) and not any(report.unbalanced.values()) and not report.notes
    assert set(names_of(questions)) <= {kind.name for kind in kinds("v2")}
    assert Counter(names_of(questions)) == report.kinds
    np.testing.assert_array_equal(predict("oracle", questions, grocery, questions), questions.answer)


def test_how_often_an_option_is_right_does_not_say_whether_it_is(grocery, grocery_v2):
    """Frequencies from half of the training users, guesses about the other half; "most often next" and "popularity"
    from all of them: within 4 standard errors of a quarter, for every kind whose options are others' right answers."""
    questions, _, _ = grocery_v2
    half = questions.user % 2 == 0
    one, other = questions.select(half), questions.select(~half)
    for name in ("majority", "most-often-next", "popularity"):
        right = predict(name, other, grocery, one) == other.answer
        own = names_of(other)
        for kind in np.unique(own):
            asked = own == kind
            if kind.startswith(("ip", "ap", "li", "si", "it", "df_basket")):
                assert abs(right[asked].mean() - 0.25) < 4 * np.sqrt(0.1875 / asked.sum()), (name, kind)


def test_natural_options_leave_room_for_the_history(grocery, grocery_v2):
    """What the user took most is right far more often than chance, unlike at the level that is matched for it."""
    questions, _, _ = grocery_v2
    right = predict("seen-option", questions, grocery, questions) == questions.answer
    own = names_of(questions)
    for sub in ("ip", "ap"):
        natural, matched = (right[own == f"{sub}_{level}"] for level in ("natural", "matched"))
        assert natural.mean() > 0.4
        assert abs(matched.mean() - 0.25) < 4 * np.sqrt(0.1875 / len(matched))


def test_options_of_the_next_basket(grocery, grocery_v2):
    questions, _, config = grocery_v2
    context = build_context(grocery, config)
    own = names_of(questions)
    taken = {}
    for attribute in range(4):
        rows = np.concatenate([np.arange(*grocery.offsets[user : user + 2]) for user in grocery.users("train")])
        taken[attribute] = set(grocery.catalogue.codes[ASKED[attribute]][grocery.items[rows]].tolist())
    for i in np.flatnonzero(np.char.endswith(own, "natural") | np.char.endswith(own, "matched")):
        user, cut, attribute = int(questions.user[i]), int(questions.cut[i]), int(questions.attribute[i])
        after = np.flatnonzero(grocery.basket_starts(user)[cut + 1 :])
        basket = grocery.sequence(user)[cut : cut + 1 + after[0]] if len(after) else grocery.sequence(user)[cut:]
        values = set(grocery.catalogue.codes[ASKED[attribute]][basket].tolist())
        options = [option[0] for option in questions.options(i)]
        assert [option in values for option in options] == [index == questions.answer[i] for index in range(4)]
        if own[i].endswith("natural"):
            often = context.following[context.base[attribute] + np.array(options)] + 1
            assert often.max() / often.min() < 2 and set(options) <= taken[attribute]


def test_levels_share_out_their_sub_task(grocery_v2):
    _, report, _ = grocery_v2
    assert (report.kinds["ip_natural"], report.kinds["ip_matched"]) == (630, 70)
    assert (report.kinds["ap_natural"], report.kinds["ap_matched"]) == (630, 70)


def test_recent_items_are_whole_baskets(grocery, grocery_v2):
    questions, _, _ = grocery_v2
    for i in np.flatnonzero(questions.subtask == SUBTASKS.index("si")):
        user, cut, window = int(questions.user[i]), int(questions.cut[i]), int(questions.params[i, 0])
        starts = grocery.basket_starts(user)
        first = max(0, cut - questions.n_history)
        assert window >= 10 and (starts[cut - window] or cut - window == first)
        assert not starts[cut - window + 1 : cut - 9].any()  # no fewer baskets hold ten items


def test_a_log_without_ties_is_asked_by_item():
    questions, report = generate(random_store(4, users=60, baskets=False), "train", WISH)
    assert "df_basket" not in report.kinds and report.kinds["df_last"] > 0 and report.kinds["df_position"] > 0
    assert set(questions.params[questions.kind == KIND_INDEX["si_recent"], 0].tolist()) == {WISH.recent_window}
    lengths = questions.params[questions.kind == KIND_INDEX["df_position"], 1]
    assert lengths.max() == WISH.history  # "the n-th of the last 24 items"


def test_what_is_not_in_balance_is_left_out_in_sight():
    store = random_store(9, users=20, items=40)
    wish = dataclasses.replace(WISH, n_questions=None, default_mix={"li": 100}, extra_cuts=0)
    _, report = generate(store, "train", wish)
    made = report.counts["li"]
    (note,) = report.notes
    assert 0 < made < 100 and report.unbalanced == {"li": 0}
    assert note.startswith(f"Sub-task li: 100 questions wanted, {made} possible from 16 of 16 train users")
    assert note.endswith("left out: with them the most frequent option would be right too often or too seldom.")
    _, report = generate(
        store, "train", dataclasses.replace(wish, mix={"li": made + 1})
    )  # it is the balance that lacks
    assert report.notes[0].startswith(f"Sub-task li: {made + 1} questions wanted, {made} made, and the others left out")
    with pytest.raises(InputError, match="Sub-task li: 100 questions wanted"):
        generate(store, "train", dataclasses.replace(wish, mix={"li": 100}))


def test_version_1_says_what_it_takes_out_of_balance():
    store = random_store(9, users=20, items=40)
    config = dataclasses.replace(WISH, version="v1", n_questions=None, default_mix={"li": 100}, extra_cuts=0)
    _, report = generate(store, "train", config)
    loose = f"Sub-task li: {report.unbalanced['li']} of {report.counts['li']} questions were taken out of balance"
    assert report.unbalanced["li"] > 0 and report.notes[-1].startswith(loose)


def test_a_set_of_version_2_is_saved_and_opened(tmp_path):
    questions, _ = generate(random_store(2), "train", dataclasses.replace(WISH, domain="watch"))
    questions.save(tmp_path / "q.arrow")
    again = QuestionSet.open(tmp_path / "q.arrow")
    assert again.version == "v2" and again.by_basket and again.extra == {"domain": "watch"}
    np.testing.assert_array_equal(again.kind, questions.kind)
    assert again.select(again.subtask == 0).version == "v2"


def test_chinese_words_follow_what_an_interaction_is(grocery, grocery_v2):
    questions, _, _ = grocery_v2
    assert questions.extra == {"domain": "purchase"}
    i = int(np.flatnonzero(names_of(questions) == "ip_natural")[0])
    said = {}
    for domain in ("click", "purchase", "watch"):
        one = dataclasses.replace(questions.select([i]), extra={"domain": domain})
        said[domain] = render(one, 0, grocery.catalogue, "zh").question
    assert "下一个可能点击的商品" in said["click"] and "下一个可能购买的商品" in said["purchase"]
    assert "下一个可能观看的影片" in said["watch"]
    for i in range(len(questions)):
        text = render(questions, i, grocery.catalogue, "zh").question
        assert "点击" not in text and "浏览" not in text


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_matched_questions_is_a_setting(share):
    store = random_store(1, users=60)
    config = QuestionConfig(
        version="v2", mix={"ap": 1}, n_questions=40, history=48, min_history=20, matched_share=share, seed=2
    )
    questions = generate(store, "train", config)[0]
    matched = np.mean([KINDS[kind].level == "matched" for kind in questions.kind])
    assert matched == pytest.approx(share)
