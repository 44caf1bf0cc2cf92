"""Baselines without a model: what they choose, and that there is nothing to be had without a history."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from uqabench.errors import InputError, RunError
from uqabench.questions.baselines import BASELINES, predict, predict_oracle, right_answers
from uqabench.questions.kinds import KIND_INDEX, KINDS
from uqabench.questions.questions import QuestionSet
from uqabench.vocabulary import SUBTASKS

from .conftest import make_store

# One training user and one evaluation user over six items in four categories.
CATEGORIES = ["tea", "tea", "milk", "bread", "Bread ", "rice"]
STORE = make_store(
    [[0, 0, 1, 2, 2, 3], [2, 2, 2, 3, 0, 2, 1, 0, 4, 5, 3, 1]],
    [0, 1],
    {"category": CATEGORIES, "title": [f"item {i}" for i in range(6)]},
)
TEA, MILK, BREAD, RICE = (STORE.catalogue.values["category"].index(name) for name in ("tea", "milk", "bread", "rice"))


def question(name, options, answer=0, param=0, attribute=1, cut=11, n_history=8):
    """One question about the evaluation user; h = milk bread tea milk tea tea Bread rice -> s[3:11], next: tea."""
    values = np.full((1, 4, 3), -1, np.int32)
    for place, option in enumerate(options):
        values[0, place, : len(option)] = option
    kind = KINDS[KIND_INDEX[name]]
    return QuestionSet(
        user=np.array([1], np.int32),
        cut=np.array([cut], np.int32),
        subtask=np.array([SUBTASKS.index(kind.subtask)], np.int8),
        kind=np.array([KIND_INDEX[name]], np.int16),
        template=np.zeros(1, np.int16),
        attribute=np.array([attribute], np.int8),
        params=np.array([[param, 0, 0, 0]], np.int32),
        option_values=values,
        option_lengths=np.array([[len(option) for option in options]], np.int8),
        answer=np.array([answer], np.int8),
        n_history=n_history,
    )


@pytest.mark.parametrize(
    ("name", "param", "expected"),
    [
        # s[3:11] = items 3 0 2 1 0 4 5 3 = bread tea milk tea tea bread rice bread ("Bread " is spelled otherwise)
        ("df_last", 1, ["bread"]),
        ("df_last", 2, ["rice"]),
        ("df_nth", 3, ["milk"]),
        ("df_list", 3, ["bread", "rice", "bread"]),
        ("mf_count", TEA, [3]),
        ("mf_count", RICE, [1]),
        ("ap_next", 0, ["tea"]),
        ("li_top3", 0, None),  # bread and tea tie
        ("si_recent", 3, ["bread"]),
        ("si_recent", 4, ["bread"]),
        ("si_recent", 5, None),  # tea and bread tie
        ("si_recent", 2, None),  # rice, bread
        ("it_path", 0, None),  # the first third is bread, tea
    ],
)
def test_true_answers_of_a_history_worked_out_by_hand(name, param, expected):
    one = question(name, [(TEA,), (MILK,), (BREAD,), (RICE,)], param=param)
    assert right_answers(one, STORE, 0) == ([] if expected is None else [expected])


def test_true_answers_of_longer_histories_worked_out_by_hand():
    options = [(TEA,), (MILK,), (BREAD,), (RICE,)]
    whole = {"cut": 11, "n_history": 11}  # milk milk milk | bread tea milk tea -> 3, 4 (tea), 4 (bread) of 11
    assert right_answers(question("it_path", options, **whole), STORE, 0) == [["milk", "tea", "bread"]]
    assert right_answers(question("li_top3", options, cut=6, n_history=6), STORE, 0) == []  # bread and tea tie
    assert right_answers(question("mf_length", options, attribute=-1, **whole), STORE, 0) == [[11]]
    assert right_answers(question("ip_next", options, attribute=0), STORE, 0) == [["item 1"]]
    assert right_answers(question("it_path", options, cut=3, n_history=3), STORE, 0) == [["milk"]]


def test_the_oracle_finds_the_right_option_and_refuses_what_has_none_or_two():
    right = question("df_last", [(TEA,), (MILK,), (BREAD,), (RICE,)], param=1)
    assert predict_oracle(right, STORE, right).tolist() == [2]
    capital = STORE.catalogue.values["category"].index("Bread ")
    for options in ([(TEA,), (MILK,), (RICE,), (TEA,)], [(TEA,), (BREAD,), (capital,), (RICE,)]):
        with pytest.raises(RunError, match=r"Question 0 has (0|2) right options"):
            predict_oracle(question("df_last", options, param=1), STORE, right)


def test_popularity_goes_by_training_interactions_and_sums_lists():
    # Training: tea 3, milk 2, bread 1, rice 0.
    asked = question("ap_next", [(RICE,), (BREAD,), (TEA,), (MILK,)])
    assert predict("popularity", asked, STORE, asked).tolist() == [2]
    listed = question("it_path", [(RICE, BREAD), (TEA,), (MILK, BREAD, MILK), (BREAD,)])
    assert predict("popularity", listed, STORE, listed).tolist() == [2]


def test_seen_option_goes_by_the_history():
    # h: bread 2 (and "Bread " once, the same), tea 3, milk 1, rice 1
    asked = question("ap_next", [(RICE,), (MILK,), (TEA,), (MILK,)])
    assert predict("seen-option", asked, STORE, asked).tolist() == [2]
    listed = question("it_path", [(RICE, MILK), (BREAD, TEA), (TEA,), (MILK,)])
    assert predict("seen-option", listed, STORE, listed).tolist() == [1]


def test_majority_goes_by_training_answers_of_the_same_kind_and_attribute():
    options = [(TEA,), (MILK,), (BREAD,), (RICE,)]
    train = question("ap_next", options, answer=3)
    other_kind = question("si_recent", options, answer=1, param=3)
    assert predict("majority", question("ap_next", options), STORE, train).tolist() == [3]
    assert predict("majority", question("ap_next", options), STORE, other_kind).tolist() == [0]
    counts = question("mf_count", [(4,), (3,), (2,), (1,)], answer=2, param=TEA)
    assert predict("popularity", counts, STORE, counts).tolist() == [2]


def test_uniform_is_seeded():
    many = question("ap_next", [(TEA,), (MILK,), (BREAD,), (RICE,)]).select(np.zeros(400, int))
    first = predict("uniform", many, STORE, many, seed=1)
    np.testing.assert_array_equal(first, predict("uniform", many, STORE, many, seed=1))
    assert not np.array_equal(first, predict("uniform", many, STORE, many, seed=2))
    assert np.bincount(first, minlength=4).min() > 70 and first.dtype == np.int8


def test_an_unknown_baseline_is_named():
    one = question("ap_next", [(TEA,), (MILK,), (BREAD,), (RICE,)])
    with pytest.raises(InputError, match="no baseline 'best'"):
        predict("best", one, STORE, one)


def test_the_oracle_scores_100_on_groceries(grocery, grocery_questions, grocery_train):
    for questions in (grocery_questions[0], grocery_train):
        np.testing.assert_array_equal(predict("oracle", questions, grocery, grocery_train), questions.answer)


def test_the_oracle_refuses_a_foreign_store(grocery, grocery_train):
    foreign = dataclasses.replace(grocery, items=grocery.items[::-1])
    with pytest.raises(RunError, match="not made from this store"):
        predict("oracle", grocery_train, foreign, grocery_train)


@pytest.mark.parametrize("name", [name for name in BASELINES if name not in ("oracle", "seen-option")])
def test_nothing_is_gained_without_a_history(grocery, grocery_questions, grocery_train, name):
    """Each sub-task within 4 standard errors of a quarter, the whole within 3."""
    questions = grocery_questions[0]
    right = predict(name, questions, grocery, grocery_train) == questions.answer
    assert abs(right.mean() - 0.25) < 3 * np.sqrt(0.1875 / len(questions))
    for sub in range(7):
        assert abs(right[questions.subtask == sub].mean() - 0.25) < 4 * np.sqrt(0.1875 / 200)


@pytest.mark.parametrize("subtask", ["df", "ip", "ap"])
def test_having_been_seen_does_not_give_the_answer_away(grocery, grocery_questions, grocery_train, subtask):
    for questions in (grocery_questions[0], grocery_train):
        own = questions.select(questions.subtask == SUBTASKS.index(subtask))
        right = predict("seen-option", own, grocery, grocery_train) == own.answer
        assert abs(right.mean() - 0.25) < max(0.03, 4 * np.sqrt(0.1875 / len(own)))
