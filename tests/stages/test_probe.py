"""Probes: they read what vectors hold, nothing where they hold nothing, and no evaluation answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.questions.conftest import random_store
from uqabench.errors import InputError
from uqabench.questions.generate import generate
from uqabench.questions.tables import equal_texts
from uqabench.settings import QuestionConfig
from uqabench.stages.probe import read_answers
from uqabench.stages.probe_labels import INDEX, WINDOWS, window_labels
from uqabench.stages.probe_reader import L2_GRID, fit_logit, fit_smoother, predicted_labels
from uqabench.stages.states import HistoryPairs
from uqabench.vocabulary import SUBTASKS

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def asked():
    store = random_store(5, users=150, length=60)
    config = dict(default_mix={"df": 1, "li": 1, "si": 1}, history=48, min_history=20, version="v2")
    train = generate(store, "train", QuestionConfig(**config, n_questions=700, seed=1))[0]
    evaluation = generate(store, "evaluation", QuestionConfig(**config, n_questions=240, seed=2))[0]
    return store, train, evaluation, HistoryPairs.of([train, evaluation])


def share_vectors(store, pairs):
    """Shares of brand, category and shop in each history: (G, 1, values)."""
    codes = equal_texts(store.catalogue)[1:]
    rows = []
    for user, start, cut in zip(pairs.users, pairs.starts, pairs.cuts, strict=True):
        items = store.sequence(int(user))[start:cut]
        rows.append(np.concatenate([np.bincount(own[items], minlength=own.max() + 1) / len(items) for own in codes]))
    return torch.tensor(np.array(rows), dtype=torch.float32)[:, None]


def scores(questions, letters):
    right = letters == questions.answer
    return {name: right[questions.subtask == SUBTASKS.index(name)].mean() for name in ("df", "li", "si")}


def test_what_a_vector_holds_is_read_and_noise_is_not(asked):
    store, train, evaluation, pairs = asked
    letters, facts = read_answers(store, train, evaluation, pairs, share_vectors(store, pairs))
    found = scores(evaluation, letters)
    assert found["li"] > 0.75 and set(facts["regressions"]) == set(WINDOWS)
    noise = torch.randn(len(pairs), 1, 16, generator=torch.Generator().manual_seed(0))
    assert scores(evaluation, read_answers(store, train, evaluation, pairs, noise)[0])["li"] < 0.45


def test_no_evaluation_answer_is_read_and_the_same_is_read_again(asked):
    store, train, evaluation, pairs = asked
    vectors = share_vectors(store, pairs)
    first = read_answers(store, train, evaluation, pairs, vectors)[0]
    other = evaluation.select(np.arange(len(evaluation)))
    other.answer = np.random.default_rng(0).permutation(other.answer)
    np.testing.assert_array_equal(first, read_answers(store, train, other, pairs, vectors)[0])


def test_labels_are_counts_in_windows(asked):
    store, _, _, pairs = asked
    labels = window_labels(store, pairs)
    codes = equal_texts(store.catalogue)
    for history in (0, len(pairs) // 2, len(pairs) - 1):
        user, start, cut = (int(column[history]) for column in (pairs.users, pairs.starts, pairs.cuts))
        items, begins = store.sequence(user)[start:cut], store.basket_starts(user)[start:cut]
        last_basket = int(np.flatnonzero(begins)[-1]) if begins.any() else 0
        third = len(items) // 3
        windows = {"all": items, "last 8": items[-8:], "item 2 back": items[-2:-1], "first third": items[:third],
                   "basket 1 back": items[last_basket:]}  # fmt: skip
        for attribute, own in enumerate(labels):
            dense = np.zeros((len(own.bounds) - 1, len(WINDOWS)))
            value = np.repeat(np.arange(len(own.bounds) - 1), np.diff(own.bounds))
            mine = own.history == history
            dense[value[mine]] = own.label[mine]
            for name, part in windows.items():
                wanted = np.bincount(codes[attribute][part], minlength=len(dense))
                np.testing.assert_allclose(dense[:, INDEX[name]], np.log1p(wanted), rtol=1e-6)


def test_predicted_labels_are_those_of_a_plain_ridge_regression(asked):
    """Against the normal equations with dense labels, for histories that the regression has not seen."""
    store, train, _, pairs = asked
    training = np.unique(pairs.keys(train))
    known = HistoryPairs(pairs.users[training], pairs.cuts[training], pairs.starts[training])
    labels = window_labels(store, known)
    vectors = share_vectors(store, pairs)
    rng = np.random.Generator(np.random.Philox(key=[0, 0]))
    sketch = sum(own.sketch(len(training), rng) for own in labels)
    smoother = fit_smoother(vectors, training, known.users, sketch)
    (source,) = smoother.sources
    assert source.l2 in L2_GRID
    own = labels[1]
    dense = np.zeros((len(training), len(own.bounds) - 1, len(WINDOWS)))
    dense[own.history, np.repeat(np.arange(len(own.bounds) - 1), np.diff(own.bounds))] = own.label
    x = vectors[:, 0].double().numpy()
    x = (x - x[training].mean(0)) / np.sqrt(np.square(x[training] - x[training].mean(0)).mean())
    unseen = np.setdiff1d(np.arange(len(pairs)), training)[:20]
    for rows, part in ((unseen, np.ones(len(training), bool)), (training[smoother.fold == 2][:9], smoother.fold != 2)):
        centred = x[training][part] - x[training][part].mean(0)
        gram = centred.T @ centred + source.l2 * part.sum() * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, centred.T @ dense[part].reshape(part.sum(), -1))
        wanted = dense[part].mean(0) + ((x[rows] - x[training][part].mean(0)) @ weights).reshape(-1, *dense.shape[1:])
        values = np.tile(np.arange(dense.shape[1], dtype=np.int32), (len(rows), 1))
        mean, deviation = predicted_labels(smoother, own, rows, values)
        np.testing.assert_allclose(mean + deviation, wanted, atol=2e-4)
    nothing = predicted_labels(smoother, own, unseen, np.array([[-1, 10**6]] * len(unseen), np.int32))
    assert not np.any(nothing)


def test_the_logit_is_at_its_maximum():
    rng = np.random.default_rng(0)
    features, truth = rng.standard_normal((300, 4, 3)), np.array([1.5, -1.0, 0.0])
    answer = (features @ truth + rng.gumbel(size=(300, 4))).argmax(1)
    found = fit_logit(features, answer)
    np.testing.assert_allclose(found, truth, atol=0.35)

    def loss(w):
        utility = features @ w
        return (np.log(np.exp(utility).sum(1)) - utility[np.arange(300), answer]).sum() + w @ w / 2

    assert all(loss(found) <= loss(found + step) for step in 0.01 * rng.standard_normal((20, 3)))


def test_too_few_users_are_a_sentence():
    with pytest.raises(InputError, match="ten users"):
        fit_smoother(torch.ones(5, 1, 2), np.arange(5), np.arange(5), np.ones((5, len(WINDOWS), 2)))
