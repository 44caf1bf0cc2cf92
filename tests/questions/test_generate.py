"""Generation as a whole: counts, users, cuts, determinism, leaks, errors."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from uqabench.errors import InputError
from uqabench.questions.baselines import predict_oracle
from uqabench.questions.generate import build_context, generate
from uqabench.questions.kinds import KINDS, kinds
from uqabench.questions.render import history_items
from uqabench.questions.tables import basket_starts
from uqabench.settings import PAPER_MIX, QuestionConfig
from uqabench.vocabulary import SUBTASKS

from .conftest import EQUAL_MIX, make_store, random_store

SMALL = QuestionConfig(n_questions=70, mix=EQUAL_MIX, history=24, min_history=8, recent_window=6, seed=3)


def saved(questions, folder):
    path = folder / "questions.arrow"
    questions.save(path)
    return path.read_bytes()


def test_counts_are_exact_and_only_users_of_the_split_are_asked(grocery, grocery_questions, grocery_train):
    questions, report = grocery_questions
    assert report.counts == {name: 200 for name in SUBTASKS}
    assert np.bincount(questions.subtask).tolist() == [200] * 7
    assert all(
        KINDS[kind].subtask == SUBTASKS[sub] for kind, sub in zip(questions.kind, questions.subtask, strict=True)
    )
    assert (grocery.split[questions.user] == 1).all()
    assert (grocery.split[grocery_train.user] == 0).all()
    assert questions.split == "evaluation" and questions.split_hash == grocery.split_hash
    assert report.unbalanced == {name: 0 for name in SUBTASKS}
    assert sum(report.discarded["li"].values()) < report.candidates["li"] and report.discarded["li"]["tie"] > 0


def test_the_paper_mix_is_the_default_and_a_mix_without_total_holds_counts():
    assert QuestionConfig().counts(SUBTASKS) == PAPER_MIX and sum(PAPER_MIX.values()) == 7192
    assert QuestionConfig(n_questions=100, mix={"df": 1, "ip": 2}).counts(SUBTASKS) == {"df": 33, "ip": 67}
    # What cannot be asked is shared out among the rest, and the total stays.
    renormalised = QuestionConfig().counts(("df", "mf"))
    assert sum(renormalised.values()) == 7192 and renormalised["df"] == round(7192 * 1508 / 1636)


def test_questions_are_spread_evenly_over_users(grocery, grocery_questions):
    questions, _ = grocery_questions
    askable = (grocery.lengths[grocery.users("evaluation")] > 24).sum()
    in_all = np.bincount(np.bincount(questions.user)[grocery.users("evaluation")])
    assert len(np.unique(questions.user)) > 0.95 * askable
    for sub in (0, 1):
        own = np.bincount(questions.user[questions.subtask == sub], minlength=len(grocery))
        assert own.max() == 1  # 200 questions, more than 200 users
    assert np.argmax(in_all) in (6, 7)


def test_nothing_is_asked_twice_about_a_history(grocery_questions, grocery_train):
    for questions in (grocery_questions[0], grocery_train):
        keys = np.column_stack([questions.user, questions.cut, questions.kind, questions.attribute, questions.params])
        assert len(np.unique(keys, axis=0)) == len(questions)


def test_questions_share_few_histories(grocery_questions, grocery_config):
    questions, report = grocery_questions
    cuts = {}
    for user, cut in zip(questions.user.tolist(), questions.cut.tolist(), strict=True):
        cuts.setdefault(user, set()).add(cut)
    assert report.histories == sum(map(len, cuts.values()))
    assert report.histories < 0.6 * len(questions)
    limit = grocery_config.cuts_per_user + grocery_config.extra_cuts
    assert max(map(len, cuts.values())) <= limit


@pytest.mark.parametrize("baskets", [True, False])
def test_cuts_are_basket_boundaries_with_a_next_item(baskets):
    store = random_store(1, baskets=baskets)
    starts = basket_starts(store)
    for split in ("train", "evaluation"):
        questions, _ = generate(store, split, SMALL)
        for user, cut in zip(questions.user, questions.cut, strict=True):
            assert SMALL.min_history <= cut < store.lengths[user]
            assert store.basket_starts(user)[cut]
    for user in range(len(store)):
        own = starts[store.offsets[user] : store.offsets[user + 1]]
        np.testing.assert_array_equal(own, store.basket_starts(user))


def test_cuts_cover_the_whole_sequence(grocery):
    questions, _ = generate(grocery, "train", QuestionConfig(mix={"df": 3000}, history=128, seed=1, extra_cuts=0))
    where = (questions.cut - 20) / (grocery.lengths[questions.user] - 20)
    assert chisquare(np.histogram(where[grocery.lengths[questions.user] > 300], 5, (0, 1))[0]).pvalue > 1e-3


def test_same_seed_same_bytes_whatever_the_threads(grocery, grocery_config, grocery_questions, tmp_path):
    config = dataclasses.replace(grocery_config, n_questions=700)
    one = saved(generate(grocery, "train", config, threads=1)[0], tmp_path)
    assert saved(generate(grocery, "train", config, threads=4)[0], tmp_path) == one
    other = saved(generate(grocery, "train", dataclasses.replace(config, seed=99), threads=4)[0], tmp_path)
    assert other != one


def test_a_new_process_generates_the_same_bytes(tmp_path):
    store = random_store(2)
    store.save(tmp_path / "store")
    expected = hashlib.sha256(saved(generate(store, "evaluation", SMALL)[0], tmp_path)).hexdigest()
    script = (
        "import sys, hashlib; from uqabench.data import InteractionStore; from uqabench.questions.generate import *;"
        "from uqabench.settings import QuestionConfig;"
        "mix = dict.fromkeys(reversed('df mf ip ap li si it'.split()), 1);"
        "c = QuestionConfig(n_questions=70, mix=mix, history=24, min_history=8, recent_window=6, seed=3);"
        "q, _ = generate(InteractionStore.open(sys.argv[1] + '/store'), 'evaluation', c);"
        "q.save(sys.argv[1] + '/again.arrow');"
        "print(hashlib.sha256(open(sys.argv[1] + '/again.arrow', 'rb').read()).hexdigest(), 'torch' in sys.modules)"
    )
    environment = {**os.environ, "NUMBA_NUM_THREADS": "3", "PYTHONHASHSEED": "12345"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [expected, "False"]


def test_letters_are_uniform(grocery_questions, grocery_train):
    counts = np.bincount(np.concatenate([grocery_questions[0].answer, grocery_train.answer]), minlength=4)
    assert chisquare(counts).pvalue > 1e-3
    assert chisquare(np.bincount(grocery_train.template % 3)).pvalue > 1e-3


def test_the_history_is_the_last_n_items_before_the_cut():
    store = random_store(4)
    user = int(store.users("evaluation")[0])
    sequence = store.sequence(user)
    np.testing.assert_array_equal(history_items(store, user, 20, 24), sequence[:20])
    np.testing.assert_array_equal(history_items(store, user, 28, 24), sequence[4:28])


def test_evaluation_users_shape_nothing_that_is_learned():
    """Other evaluation sequences: the same tables, pools and training questions."""
    store = random_store(5)
    rng = np.random.default_rng(0)
    items = store.items.copy()
    for user in store.users("evaluation"):
        span = slice(store.offsets[user], store.offsets[user + 1])
        items[span] = rng.integers(0, len(store.catalogue), len(items[span]))
    changed = dataclasses.replace(store, items=items)
    before, after = build_context(store, SMALL), build_context(changed, SMALL)
    for name, value in before._asdict().items():
        if name != "items":
            np.testing.assert_array_equal(value, getattr(after, name), err_msg=name)
    ours, theirs = generate(store, "train", SMALL)[0], generate(changed, "train", SMALL)[0]
    for name in ("user", "cut", "kind", "option_values", "answer"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert not np.array_equal(
        generate(store, "evaluation", SMALL)[0].option_values, generate(changed, "evaluation", SMALL)[0].option_values
    )


def test_what_comes_after_the_cut_matters_to_action_prediction_alone():
    """The last item of a sequence is behind every cut's history, and is s[cut] for the last cut only."""
    store = random_store(6, baskets=False)
    items = store.items.copy()
    items[store.offsets[1:] - 1] = (items[store.offsets[1:] - 1] + 1) % len(store.catalogue)
    changed = dataclasses.replace(store, items=items)
    for name in ("df", "mf", "li", "si", "it"):
        config = dataclasses.replace(SMALL, mix={name: 1}, n_questions=20)
        ours, _ = generate(store, "evaluation", config)
        np.testing.assert_array_equal(predict_oracle(ours, changed, ours), ours.answer)


def test_a_data_set_without_attributes_leaves_sub_tasks_out():
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 30, 60) for _ in range(60)]
    split = np.arange(60) % 2
    brands = make_store(sequences, split, {"brand": [f"b{i % 8}" for i in range(30)]})
    questions, report = generate(brands, "evaluation", dataclasses.replace(SMALL, n_questions=60))
    assert report.left_out == ["ip"] and sum(report.counts.values()) == 60 and "ip" not in report.counts
    assert set(questions.attribute.tolist()) <= {2, -1}
    assert report.notes == ["The data set lacks the attributes for ip: the others share out the questions."]

    titles = make_store(sequences, split, {"title": [f"t{i}" for i in range(30)]})
    questions, report = generate(titles, "evaluation", dataclasses.replace(SMALL, n_questions=20))
    assert report.left_out == ["ap", "li", "si", "it"] and set(questions.attribute.tolist()) <= {0, -1}

    nothing = make_store(sequences, split, {"seller": [f"s{i}" for i in range(30)]})
    with pytest.raises(InputError, match="lacks the attributes for ip"):
        generate(nothing, "evaluation", dataclasses.replace(SMALL, mix={"ip": 1}))


def test_a_sub_task_that_cannot_reach_its_count_says_how_far_it_gets():
    # Every value of the history occurs equally often: third place and first place are always tied.
    sequence = np.tile(np.arange(6), 8)
    store = make_store([sequence] * 8, np.arange(8) % 2, {"category": [f"c{i}" for i in range(6)]}, None)
    config = QuestionConfig(mix={"li": 5}, history=12, min_history=12)
    with pytest.raises(InputError, match=r"Sub-task li: 5 questions wanted, 0 possible from 4 of 4 evaluation.*tie"):
        generate(store, "evaluation", config)
    with pytest.raises(InputError, match=r"0 of 4 evaluation users \(4 have no more than min_history \(48\) interac"):
        generate(store, "evaluation", dataclasses.replace(config, min_history=48))


def test_the_default_mix_takes_what_the_data_carry_and_says_so():
    """Category counts are always tied, so nothing can be asked about interests; direct features can."""
    sequence = np.tile(np.arange(6), 8)
    store = make_store([sequence] * 8, np.arange(8) % 2, {"category": [f"c{i}" for i in range(6)]}, None)
    config = QuestionConfig(default_mix={"df": 5, "li": 5}, history=12, min_history=12)
    questions, report = generate(store, "evaluation", config)
    assert report.counts == {"df": 5, "li": 0} and report.wanted == {"df": 5, "li": 5} and len(questions) == 5
    (note,) = report.notes
    assert (
        note.startswith("Sub-task li: 5 questions wanted, 0 possible from 4 of 4 evaluation users (") and "tie" in note
    )
    with pytest.raises(InputError, match="No question is possible. Sub-task li"):
        generate(store, "evaluation", dataclasses.replace(config, default_mix={"li": 5}))
    with pytest.raises(InputError, match="Sub-task li: 5 questions wanted"):
        generate(store, "evaluation", dataclasses.replace(config, mix={"df": 5, "li": 5}))


def test_a_log_in_which_a_user_s_clicks_share_one_second_is_named():
    sequences = [np.arange(40) % 7] * 6
    times = [np.full(40, 5)] * 4 + [np.repeat([1, 2], [30, 10]), np.repeat([1, 2], [5, 35])]
    store = make_store(sequences, np.ones(6), {"category": [f"c{i}" for i in range(7)]}, times)
    config = QuestionConfig(mix={"df": 1}, history=12, min_history=20)
    assert len(generate(store, "evaluation", config)[0]) == 1
    with pytest.raises(InputError) as error:
        generate(store, "evaluation", dataclasses.replace(config, mix={"df": 1000}))
    assert "1 of 6 evaluation users (4 have one timestamp for all interactions: one basket" in str(error.value)
    assert "1 have no basket that begins after min_history interactions)" in str(error.value)


def test_the_questions_of_the_synthetic_log_stay_the_same(small_train, small_evaluation, tmp_path):
    """Every kind of question, to the byte: results of different versions of the code remain comparable."""
    digests = [hashlib.sha256(saved(questions, tmp_path)).hexdigest() for questions in (small_train, small_evaluation)]
    assert digests == [
        "69c98662416f1fcd8c908e7930ede3dd545ba06357133e8d68f9dd35def0aba1",
        "c4abef98054d10a60e1b03ccc8e5b644d82554b0e8e38c2d63b3a33e3282d5fa",
    ]
    asked = np.union1d(small_train.kind, small_evaluation.kind)
    assert asked.tolist() == list(range(len(kinds("v1"))))


def test_the_questions_of_version_2_stay_the_same(small_store, tmp_path):
    config = dataclasses.replace(SMALL, version="v2", n_questions=140, min_history=10)
    questions, report = generate(small_store, "train", config)
    assert report.counts == dict.fromkeys(SUBTASKS, 20) and not report.notes
    assert hashlib.sha256(saved(questions, tmp_path)).hexdigest() == (
        "d737a21e4a7b2c73eb8dc88a300151804696b2185e7de495d75187af69c6134f"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mix": {"xx": 1}}, "no sub-task 'xx'"),
        ({"mix": {"df": -1}}, "mix.df"),
        ({"mix": {"df": 0.5}}, "mix.df.*whole"),
        ({"mix": {}}, "mix asks for no questions"),
        ({"default_mix": {"xx": 1}}, "default_mix names no sub-task 'xx'"),
        ({"default_mix": {"df": 0}}, "default_mix asks for no questions"),
        ({"n_questions": 0}, "n_questions"),
        ({"history": 3}, "history"),
        ({"min_history": 1}, "min_history"),
        ({"recent_window": 600}, "recent_window"),
        ({"cuts_per_user": 0}, "cuts_per_user"),
        ({"seed": -1}, "seed"),
    ],
)
def test_senseless_settings_are_named(change, message):
    with pytest.raises(InputError, match=message):
        generate(random_store(7), "evaluation", dataclasses.replace(QuestionConfig(), **change))


def test_an_unknown_split_is_named():
    with pytest.raises(InputError, match="no split 'test'"):
        generate(random_store(7), "test", SMALL)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 10_000),
    items=st.integers(8, 60),
    categories=st.integers(1, 6),
    length=st.integers(12, 80),
    missing=st.sampled_from([0.0, 0.3]),
    baskets=st.booleans(),
    subtask=st.sampled_from(SUBTASKS),
    history=st.integers(4, 40),
)
def test_one_option_is_right_on_any_store(seed, items, categories, length, missing, baskets, subtask, history):
    """The oracle shares no code with generation, and raises unless exactly one option is right."""
    store = random_store(seed, 15, items, categories, length, missing, baskets)
    config = QuestionConfig(mix={subtask: 1}, history=history, min_history=6, recent_window=4, seed=seed)
    try:
        questions, _ = generate(store, "train", config)
    except InputError as error:
        assert "0 possible" in str(error)
        return
    np.testing.assert_array_equal(predict_oracle(questions, store, questions), questions.answer)
