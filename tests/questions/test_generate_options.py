"""Wrong options: hard, never right, and without short cuts. Checked by brute force on grocery baskets."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from uqabench.questions.generate import build_context
from uqabench.questions.kinds import ASKED, KINDS
from uqabench.questions.kinds.next_item import occurrence_class
from uqabench.questions.render import history_items
from uqabench.vocabulary import SUBTASKS


@pytest.fixture(scope="module")
def all_questions(grocery_questions, grocery_train):
    return [grocery_questions[0], grocery_train]


def rows_of(questions, subtask):
    return np.flatnonzero(questions.subtask == SUBTASKS.index(subtask))


def codes_of(store, questions, i):
    """Codes of the history of question i; this catalogue has no two spellings of one value."""
    items = history_items(store, int(questions.user[i]), int(questions.cut[i]), questions.n_history)
    return store.catalogue.codes[ASKED[questions.attribute[i]]][items].tolist()


def test_options_are_distinct_as_text(grocery, all_questions):
    for questions in all_questions:
        for i in range(len(questions)):
            options = questions.options(i)
            if not KINDS[questions.kind[i]].counts:
                name = ASKED[questions.attribute[i]]
                options = [tuple(grocery.catalogue.text(name, code).casefold() for code in o) for o in options]
            assert len(set(options)) == 4


def test_direct_feature_options_come_from_the_history(grocery, all_questions):
    for questions in all_questions:
        for i in rows_of(questions, "df"):
            codes = codes_of(grocery, questions, i)
            name = KINDS[questions.kind[i]].name
            assert questions.params[i, 0] <= (10 if name == "df_nth" else 3)
            for option in questions.options(i):
                runs = zip(*(codes[shift:] for shift in range(len(option))), strict=False)
                assert tuple(option) in set(runs)


def test_counts_offered_are_near_positive_and_equally_spaced(all_questions):
    places = Counter()
    for questions in all_questions:
        for i in rows_of(questions, "mf"):
            offered = sorted(option[0] for option in questions.options(i))
            step = offered[1] - offered[0]
            assert offered[0] >= 1 and np.all(np.diff(offered) == step) and step == 1 + offered[0] // 8
            length = min(int(questions.cut[i]), questions.n_history)
            assert offered[3] <= length or KINDS[questions.kind[i]].name == "mf_length"
            assert offered[3] < questions.n_history or KINDS[questions.kind[i]].name == "mf_count"
            places[offered.index(questions.option(i, int(questions.answer[i]))[0])] += 1
    assert max(places.values()) - min(places.values()) < 0.15 * sum(places.values()) / 4


def test_lengths_are_asked_only_where_they_differ(all_questions):
    for questions in all_questions:
        lengths = [i for i in rows_of(questions, "mf") if KINDS[questions.kind[i]].name == "mf_length"]
        assert lengths and all(questions.cut[i] < questions.n_history for i in lengths)


def test_next_items_are_matched_in_category_occurrence_and_popularity(grocery, grocery_config, all_questions):
    context = build_context(grocery, grocery_config)
    titles, categories = grocery.catalogue.codes["title"], grocery.catalogue.codes["category"]
    category_of = {}
    for item in np.argsort(grocery.catalogue.popularity, kind="stable"):
        category_of[int(titles[item])] = int(categories[item])
    seen = 0
    for questions in all_questions:
        for sub in ("ip", "ap"):
            for i in rows_of(questions, sub):
                attribute = int(questions.attribute[i])
                counts = Counter(codes_of(grocery, questions, i))
                options = [option[0] for option in questions.options(i)]
                right = options[questions.answer[i]]
                assert {occurrence_class(counts[v]) for v in options} == {occurrence_class(counts[right])}
                seen += counts[right] > 0
                if sub == "ip":
                    assert len({category_of[v] for v in options}) == 1
                # In the order of popularity as a next item, nothing of the same kind lies between the options.
                places = sorted(int(context.rank[context.base[attribute] + v]) for v in options)
                between = context.order[places[0] : places[3] + 1]
                alike = [v for v in between if occurrence_class(counts[v]) == occurrence_class(counts[right])]
                assert len(alike) == 4
    assert seen > 300


def test_occurrence_classes():
    assert [occurrence_class(n) for n in range(10)] == [0, 1, 2, 3, 4, 4, 5, 5, 5, 6]


@pytest.mark.parametrize("subtask", ["li", "si", "it"])
def test_interest_options_are_answers_that_others_could_have(grocery, all_questions, subtask):
    shared = Counter()
    for questions in all_questions:
        for i in rows_of(questions, subtask):
            options = questions.options(i)
            right = options[questions.answer[i]]
            for option in options:
                if subtask == "li":
                    assert len(set(option)) == 3
                elif subtask == "si":
                    assert len(option) == 1
                else:
                    assert 1 <= len(option) <= 3 and all(a != b for a, b in zip(option, option[1:], strict=False))
                shared["some"] += 0 < len(set(option) & set(right)) < len(set(right) | set(option))
            in_history = set(codes_of(grocery, questions, i))
            shared["in history"] += np.mean([bool(in_history & set(option)) for option in options])
    total = sum(len(rows_of(questions, subtask)) for questions in all_questions)
    assert shared["in history"] > 0.6 * total
    if subtask != "si":
        assert shared["some"] > total  # of the three wrong ones, more than one on average


def test_at_most_one_path_in_ten_is_unchanged(all_questions):
    for questions in all_questions:
        rows = rows_of(questions, "it")
        unchanged = questions.option_lengths[rows, questions.answer[rows]] == 1
        assert 0 < unchanged.mean() <= 0.1


def test_an_unchanged_path_is_right_as_often_as_chance(all_questions):
    """Offered paths of one value must not give themselves away, one way or the other."""
    offered = right = 0
    for questions in all_questions:
        for i in rows_of(questions, "it"):
            single = questions.option_lengths[i] == 1
            offered += single.sum()
            right += single[questions.answer[i]]
    assert abs(right / offered - 0.25) < 4 * np.sqrt(0.25 * 0.75 / offered)


def test_right_answers_do_not_stand_out_among_their_options(all_questions):
    """The option that shares most with the others is right one time in four: truths are no centre of their options."""
    questions = all_questions[1]
    for subtask in ("li", "it"):
        hits = []
        for i in rows_of(questions, subtask):
            options = questions.options(i)
            overlap = [sum(len(set(a) & set(b)) for b in options) - len(set(a)) for a in options]
            best = max(overlap)
            hits.append((overlap[questions.answer[i]] == best) / overlap.count(best))
        assert abs(np.mean(hits) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(hits))
