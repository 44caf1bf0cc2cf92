"""The judges: they find what is planted, learn nothing from evaluation answers, and say where they cannot learn."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from uqabench.questions.baselines import predict
from uqabench.questions.generate import generate
from uqabench.questions.judges.history_features import NAMES, history_features
from uqabench.questions.judges.option_features import ValueFacts, right_rates
from uqabench.questions.judges.transitions import count_transitions
from uqabench.questions.questions import QuestionSet
from uqabench.questions.tables import basket_starts, equal_texts
from uqabench.settings import QuestionConfig
from uqabench.vocabulary import JUDGES, SUBTASKS

from .conftest import make_store, random_store

MIX = {name: 1 for name in SUBTASKS}


@pytest.fixture(scope="module", params=["v1", "v2"])
def asked(request):
    """(store, training questions, evaluation questions) of a random log, in both versions."""
    store = random_store(3, users=120, length=60)
    config = dict(version=request.param, default_mix=MIX, history=48, min_history=20)
    train = generate(store, "train", QuestionConfig(**config, n_questions=900, seed=1))[0]
    return store, train, generate(store, "evaluation", QuestionConfig(**config, n_questions=300, seed=2))[0]


def with_answers(questions: QuestionSet, answer: np.ndarray) -> QuestionSet:
    out = questions.select(np.arange(len(questions)))
    out.answer = answer.astype(np.int8)
    return out


@pytest.mark.parametrize("name", JUDGES)
def test_no_evaluation_answer_is_read(asked, name):
    store, train, questions = asked
    first = predict(name, questions, store, train, seed=1)
    permuted = with_answers(questions, np.random.default_rng(0).permutation(questions.answer))
    np.testing.assert_array_equal(first, predict(name, permuted, store, train, seed=1))


@pytest.mark.parametrize("name", JUDGES)
def test_training_answers_are_what_they_learn(asked, name):
    store, train, questions = asked
    first = predict(name, questions, store, train, seed=1)
    other = with_answers(train, np.random.default_rng(0).permutation(train.answer))
    assert (first != predict(name, questions, store, other, seed=1)).mean() > 0.2


def test_the_history_tells_and_its_absence_does_not(asked):
    store, train, questions = asked
    right = {name: predict(name, questions, store, train, seed=0) == questions.answer for name in JUDGES}
    told = np.isin(questions.subtask, [SUBTASKS.index(name) for name in ("mf", "li", "si")])
    assert right["history-model"][told].mean() > 0.8
    assert right["no-history-model"][told].mean() < 0.4


def test_threads_change_nothing(asked):
    store, *sets = asked
    train, questions = (each.select(each.subtask == SUBTASKS.index("ap")) for each in sets)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(predict("history-model", questions, store, train, seed=0))
    np.testing.assert_array_equal(*found)


def test_a_short_cut_is_found():
    """Where the right option is always the most popular one, the judge without history says so."""
    store = random_store(4, users=80)
    config = dict(version="v2", mix={"ap": 1}, history=48, min_history=20)
    sets = [
        generate(store, split, QuestionConfig(**config, n_questions=n, seed=5))[0]
        for split, n in (("train", 400), ("evaluation", 80))
    ]
    popular = [with_answers(each, predict("popularity", each, store, sets[0])) for each in sets]
    right = predict("no-history-model", popular[1], store, popular[0], seed=0) == popular[1].answer
    assert right.mean() > 0.95


def test_a_users_own_answers_are_no_feature_of_the_user(asked):
    store, train, _ = asked
    user = int(train.user[0])
    own = train.user == user
    changed = np.where(own, (train.answer + 1) % 4, train.answer)
    first, second = right_rates(train, train), right_rates(train, with_answers(train, changed))
    for name, values in first.items():
        np.testing.assert_array_equal(values[own], second[name][own])
    assert any((values[~own] != second[name][~own]).any() for name, values in first.items())


def test_transitions_count_neighbouring_baskets_of_training_users():
    """Against a count by hand, basket by basket."""
    store = random_store(6, users=30, items=25)
    codes, starts = equal_texts(store.catalogue)[1], basket_starts(store)
    found = count_transitions(store, codes, starts)
    n = len(found.sources)
    wanted, sources = np.zeros((n, n), int), np.zeros(n, int)
    for user in store.users("train"):
        items, begins = store.sequence(int(user)), np.flatnonzero(store.basket_starts(int(user)))
        baskets = [set(codes[part].tolist()) - {-1} for part in np.split(items, begins[1:])]
        for before, after in zip(baskets[:-1], baskets[1:], strict=True):
            sources[list(before)] += 1
            for a in before:
                wanted[a, list(after)] += 1
    dense = np.zeros((n, n), int)
    for row in range(n):
        dense[row, found.indices[found.indptr[row] : found.indptr[row + 1]]] = found.counts[
            found.indptr[row] : found.indptr[row + 1]
        ]
    np.testing.assert_array_equal(dense, wanted)
    np.testing.assert_array_equal(found.sources, sources)


def test_counts_of_a_history_worked_out_by_hand():
    """h = s[3:11] of baskets (b) (t) (m t) (t b) (r b), in one question about the last basket's value."""
    names = ["tea", "milk", "bread", "rice"]
    tea, milk, bread, rice = range(4)
    sequence = [milk, milk, milk, bread, tea, milk, tea, tea, bread, rice, bread, milk]
    times = np.array([0, 1, 2, 3, 4, 5, 5, 6, 6, 7, 7, 8])
    store = make_store(
        [[tea] * 4, sequence],
        [0, 1],
        {"category": names, "title": names},
        [np.arange(4), times],
    )
    code = {name: store.catalogue.values["category"].index(name) for name in names}
    values = np.full((1, 4, 3), -1, np.int32)
    values[0, :, 0] = [code[name] for name in ("tea", "milk", "bread", "rice")]
    questions = QuestionSet(
        user=np.array([1], np.int32), cut=np.array([11], np.int32), subtask=np.array([SUBTASKS.index("ap")], np.int8),
        kind=np.array([0], np.int16), template=np.zeros(1, np.int16), attribute=np.array([1], np.int8),
        params=np.array([[1, 0, 0, 0]], np.int32), option_values=values, option_lengths=np.ones((1, 4), np.int8),
        answer=np.array([0], np.int8), n_history=8, version="v2",
    )  # fmt: skip
    found = history_features(questions, store, ValueFacts(store, True))
    expected = {
        "in all": [3, 1, 3, 1],
        "in last 2": [0, 0, 1, 1],
        "in last basket": [0, 0, 1, 1],
        "in first half": [2, 1, 1, 0],
        "since last": [3, 5, 0, 1],
        "baskets": [3, 1, 3, 1],
        "baskets since": [1, 2, 0, 0],
        "at place": [0, 0, 1, 0],
        "at place from end": [0, 0, 1, 0],
        "in basket from end": [0, 0, 0.5, 0.5],
        "history length": [8, 8, 8, 8],
    }
    for name, wanted in expected.items():
        np.testing.assert_allclose(found[name][0], wanted, err_msg=name)
    assert set(NAMES) <= set(found)


def test_too_few_training_questions_are_named(asked, caplog):
    store, train, questions = asked
    with caplog.at_level(logging.WARNING, logger="uqabench"):
        found = predict("history-model", questions, store, train.select(np.arange(20)), seed=0)
    assert "training questions of" in caplog.text and "takes the first option" in caplog.text
    assert found.dtype == np.int8 and set(found.tolist()) <= {0, 1, 2, 3}
