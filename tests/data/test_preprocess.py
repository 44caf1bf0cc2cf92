"""Length rules against a naive loop, the order of rows, and what is said when nothing is left."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uqabench.data.log import RawLog
from uqabench.data.preprocess import exclude, filter_log, fixed_point
from uqabench.data.rows import CodedRows, from_end
from uqabench.errors import InputError
from uqabench.settings import PrepareConfig


def naive(rows, min_items, min_user, max_user, last):
    """The definition, on a list of (user, item) in time order within each user."""
    rows = list(enumerate(rows))

    def tail(rows):
        seen = Counter(user for _, (user, _) in rows)
        kept = []
        for row in rows:
            seen[row[1][0]] -= 1
            if seen[row[1][0]] < last:
                kept.append(row)
        return kept

    while True:
        before = len(rows)
        counted = Counter(item for _, (_, item) in tail(rows))
        rows = [row for row in rows if counted[row[1][1]] >= min_items]
        lengths = Counter(user for _, (user, _) in rows)
        rows = [row for row in rows if lengths[row[1][0]] >= min_user]
        lengths = Counter(user for _, (user, _) in rows)
        rows = [row for row in rows if lengths[row[1][0]] <= max_user]
        if len(rows) == before:
            return [index for index, _ in tail(rows)]


@settings(max_examples=200)
@given(
    rows=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 8)), max_size=80),
    min_items=st.integers(1, 4),
    min_user=st.integers(1, 4),
    extra=st.integers(0, 12),
    last=st.integers(4, 20),
)
def test_fixed_point_equals_naive_loop(rows, min_items, min_user, extra, last):
    rows = sorted(rows, key=lambda row: row[0])
    users = np.array([user for user, _ in rows], np.int32)
    items = np.array([item for _, item in rows], np.int32)
    coded = CodedRows(users, items)
    removals = fixed_point(
        coded,
        min_item_interactions=min_items,
        min_user_length=min_user,
        max_user_length=min_user + extra,
        max_sequence=last,
    )
    keep = coded.keep
    assert keep.tolist() == naive(rows, min_items, min_user, min_user + extra, last)
    assert len(rows) - len(keep) == sum(removal.interactions for removal in removals)
    assert len(set(users)) - len(set(users[keep])) == sum(removal.users for removal in removals)
    assert len(set(items)) - len(set(items[keep])) == sum(removal.items for removal in removals)
    if len(keep):
        assert min(Counter(items[keep].tolist()).values()) >= min_items
        lengths = Counter(users[keep].tolist()).values()
        assert min(lengths) >= min_user and max(lengths) <= min(last, min_user + extra)


def test_one_pass_would_not_do():
    # Item 9 is rare; without it user 2 is short; without user 2 item 1 is rare; and so on to the end of the chain.
    users = np.array([0, 0, 0, 1, 1, 1, 2, 2], np.int32)
    items = np.array([0, 0, 0, 0, 0, 1, 1, 9], np.int32)
    coded = CodedRows(users, items)
    removals = fixed_point(coded, min_item_interactions=2, min_user_length=2, max_user_length=9, max_sequence=9)
    assert coded.keep.tolist() == [0, 1, 2, 3, 4]
    assert [(r.users, r.items, r.interactions) for r in removals] == [(0, 2, 2), (1, 0, 1), (0, 0, 0), (0, 0, 0)]


def test_from_end():
    assert from_end(np.array([4, 4, 4, 7, 9, 9])).tolist() == [2, 1, 0, 0, 1, 0]


def log_of(rows: list[tuple[str, str, int]], categories: dict[str, str] | None = None) -> RawLog:
    user_ids, item_ids = sorted({r[0] for r in rows}), sorted({r[1] for r in rows})
    attributes = {"category": pa.array([categories.get(i) for i in item_ids], pa.string())} if categories else {}
    return RawLog(
        user_ids=pa.array(user_ids),
        users=np.array([user_ids.index(r[0]) for r in rows], np.int32),
        item_ids=pa.array(item_ids),
        items=np.array([item_ids.index(r[1]) for r in rows], np.int32),
        attributes=attributes,
        read=(len(user_ids), len(item_ids), len(rows)),
        times=np.array([r[2] for r in rows], np.int64),
    )


LOOSE = PrepareConfig(min_item_interactions=1, min_user_length=1)


def test_ties_in_time_keep_the_order_of_rows():
    log = log_of([("b", "x", 5), ("a", "z", 5), ("a", "y", 5), ("a", "x", 4), ("b", "y", 5), ("a", "w", 5)])
    filter_log(log, LOOSE)
    ids = log.item_ids.to_pylist()
    assert [(log.users[i], ids[log.items[i]]) for i in range(6)] == [
        (0, "x"), (0, "z"), (0, "y"), (0, "w"), (1, "x"), (1, "y"),
    ]  # fmt: skip


def test_cut_keeps_the_last_in_time():
    log = log_of([("a", f"i{t}", 10 - t) for t in range(6)])
    filter_log(log, PrepareConfig(min_item_interactions=1, min_user_length=1, max_sequence=2))
    assert log.times.tolist() == [9, 10]


def test_exclusions_by_id_and_category():
    rows = [("a", item, t) for t, item in enumerate("wxyz")]
    log = log_of(rows, {"w": "Toys", "x": "Toys", "y": "Tobacco", "z": "Books"})
    exclude(log, PrepareConfig(exclude_items=["x", "absent"], exclude_categories=[" tobacco"]))
    assert [log.item_ids[int(i)].as_py() for i in log.items] == ["w", "z"]
    assert [(r.rule, r.interactions) for r in log.removals] == [
        ("items excluded by id", 1),
        ("categories excluded by name", 1),
    ]


def test_misspelt_category_is_an_error_with_a_suggestion():
    log = log_of([("a", "x", 0)], {"x": "Tobacco"})
    with pytest.raises(InputError, match="no category 'tabacco'.*did you mean tobacco"):
        exclude(log, PrepareConfig(exclude_categories=["tabacco"]))


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        (PrepareConfig(min_item_interactions=7, min_user_length=1), "items with fewer than 7"),
        (PrepareConfig(min_item_interactions=1, min_user_length=6), "users with fewer than 6"),
        (PrepareConfig(min_item_interactions=1, min_user_length=1, max_user_length=2), "users with more than 2"),
    ],
)
def test_an_emptied_log_names_the_rule(config, rule):
    log = log_of([(user, item, 0) for user in "ab" for item in "xyz"])
    with pytest.raises(InputError, match=rule):
        filter_log(log, config)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"min_item_interactions": 0}, "min_item_interactions"),
        ({"min_user_length": 2.5}, "min_user_length"),
        ({"max_user_length": 3}, "max_user_length"),
        ({"max_sequence": 4}, "max_sequence"),
        ({"evaluation_fraction": 1.0}, "evaluation_fraction"),
        ({"split_seed": -1}, "split_seed"),
    ],
)
def test_settings_are_checked(settings, name):
    with pytest.raises(InputError, match=name):
        PrepareConfig(**settings)
