"""Batches and windows: everything once, within budget, the same every time, shared out without overlap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uqabench.data import batch_plan, pack, plan_batches, windows
from uqabench.data.packer import share_evenly
from uqabench.errors import InputError

lengths_of = st.lists(st.integers(0, 50), min_size=1, max_size=150)


@settings(max_examples=100)
@given(lengths_of, st.integers(50, 300), st.integers(0, 9), st.integers(0, 9), st.booleans())
def test_batches_hold_every_row_once(lengths, budget, seed, epoch, shuffle):
    batches = plan_batches(lengths, budget, seed=seed, epoch=epoch, shuffle=shuffle)
    again = plan_batches(np.array(lengths), budget, seed=seed, epoch=epoch, shuffle=shuffle)
    assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in again]
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(len(batch) and batch.dtype == np.int64 for batch in batches)
    assert all(sum(lengths[row] for row in batch) <= budget for batch in batches)


@settings(max_examples=100)
@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 7))
def test_shares_of_a_batch_hold_each_member_once_and_are_even(sizes, shares):
    parts = share_evenly(np.array(sizes, int), shares)
    assert len(parts) == shares and all(part.tolist() == sorted(part) for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(sizes)))
    sums = [sum(sizes[i] for i in part) for part in parts]
    assert max(sums) - min(sums) <= max(sizes, default=0)  # no member could be moved to make them more even


def test_batches_are_full_and_hold_like_lengths():
    lengths = np.random.default_rng(0).integers(1, 512, 20_000)
    batches = plan_batches(lengths, 8192, seed=0, epoch=0)
    filled = np.array([lengths[batch].sum() for batch in batches])
    assert filled.mean() > 0.97 * 8192
    spread = np.mean([np.ptp(lengths[batch]) for batch in batches])
    assert spread < 60  # unsorted batches of this size would span nearly all of 1..511


def test_epochs_and_seeds_differ():
    lengths = np.random.default_rng(0).integers(1, 20, 400)
    plans = {
        tuple(np.concatenate(plan_batches(lengths, 100, seed=seed, epoch=epoch)).tolist())
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(plans) == 4


def test_without_shuffle_lengths_ascend():
    batches = plan_batches([3, 1, 2, 1], 4, seed=0, epoch=0, shuffle=False)
    assert [batch.tolist() for batch in batches] == [[1, 3, 2], [0]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lengths": [1, 9, 2], "token_budget": 8}, "Sequence 1 has 9 tokens, more than token_budget 8"),
        ({"lengths": [1, -1]}, r"lengths\[1\] is -1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_plans_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        plan_batches(**{"lengths": [1], "token_budget": 10, "seed": 0, "epoch": 0, **arguments})


@settings(max_examples=60)
@given(length=st.integers(1, 25), seed=st.integers(0, 5), epoch=st.integers(0, 5), data=st.data())
def test_windows_cover_what_they_should(ragged_store, length, seed, epoch, data):
    store = ragged_store
    users = np.array(data.draw(st.permutations(range(5))))
    last = windows(store, users, length)
    assert last[0].tolist() == users.tolist()
    assert all(e == store.lengths[u] and s == max(0, e - length) for u, s, e in zip(*last, strict=True))
    chunks = list(zip(*windows(store, users, length, mode="chunks", seed=seed, epoch=epoch), strict=True))
    for user in users:
        covered = [position for u, s, e in chunks if u == user for position in range(s, e)]
        assert covered == list(range(store.lengths[user]))
    assert all(0 < e - s <= length for _, s, e in chunks)
    whole = [u for u, s, e in chunks if e - s == store.lengths[u]]
    assert sorted(whole) == [u for u in range(5) if 0 < store.lengths[u] <= length]


def test_chunk_phase_moves_with_the_epoch_but_not_with_the_company(ragged_store):
    def cut(users, epoch):
        chunk_users, _, ends = windows(ragged_store, np.array(users), 5, mode="chunks", seed=0, epoch=epoch)
        return ends[chunk_users == 3].tolist()

    assert cut([3], 1) == cut([2, 3, 4], 1)
    assert len({tuple(cut([3], epoch)) for epoch in range(20)}) == 5


def test_pack_copies_the_windows_asked_for(ragged_store):
    batch = pack(ragged_store, [2, 3, 2, 1], [0, 18, 3, 0], [2, 20, 3, 1])
    assert batch.items.tolist() == [1, 2, 26, 27, 0]
    assert batch.timestamps.tolist() == [101, 102, 126, 127, 100]
    assert batch.offsets.tolist() == [0, 2, 4, 4, 5]
    assert batch.rows.tolist() == [0, 1, 2, 3]
    assert batch.items.dtype == batch.timestamps.dtype == batch.offsets.dtype == batch.rows.dtype == np.int64
    some = pack(ragged_store, [2, 3, 2, 1], [0, 18, 3, 0], [2, 20, 3, 1], rows=np.array([3, 0]))
    assert some.items.tolist() == [0, 1, 2] and some.rows.tolist() == [3, 0] and len(some) == 2


def test_pack_of_a_mapped_store(synthetic_store):
    users, starts, ends = windows(synthetic_store, synthetic_store.users("train"), 16)
    batch = pack(synthetic_store, users, starts, ends)
    for b, user in enumerate(users):
        expected = synthetic_store.sequence(user)[-16:]
        assert batch.items[batch.offsets[b] : batch.offsets[b + 1]].tolist() == expected.tolist()


@pytest.mark.parametrize(("user", "start", "end"), [(5, 0, 0), (-1, 0, 0), (2, 0, 8), (2, -1, 3), (2, 4, 3)])
def test_pack_names_the_row_that_leaves_its_sequence(ragged_store, user, start, end):
    with pytest.raises(InputError, match=f"Row 1 asks for {start}:{end} of user {user}"):
        pack(ragged_store, [2, user], [0, start], [1, end])


def test_bad_windows_are_refused(ragged_store):
    with pytest.raises(InputError, match="length is 0"):
        windows(ragged_store, np.array([0]), 0)
    with pytest.raises(InputError, match="no window mode 'first'"):
        windows(ragged_store, np.array([0]), 5, mode="first")
    with pytest.raises(InputError, match="past the store's 5 users"):
        windows(ragged_store, np.array([5]), 5)


@pytest.mark.parametrize("world", [2, 3, 8])
def test_ranks_have_as_many_batches_and_tokens(world):
    lengths = np.random.default_rng(world).geometric(0.01, 30_000).clip(1, 512)
    plans = [batch_plan(lengths, 8192, seed=1, epoch=2, rank=rank, world=world) for rank in range(world)]
    assert len({len(plan) for plan in plans}) == 1
    tokens = [sum(int(lengths[plan[step]].sum()) for step in range(len(plan))) for plan in plans]
    assert max(tokens) <= 1.01 * min(tokens)
    steps = [[int(lengths[plan[step]].sum()) for plan in plans] for step in range(len(plans[0]))]
    assert np.mean([max(step) - min(step) for step in steps]) < 0.01 * 8192


def test_a_plan_gives_any_step_without_the_others():
    lengths = np.random.default_rng(0).integers(1, 90, 5_000)
    plan = batch_plan(lengths, 900, seed=0, epoch=0)
    assert [plan[step].tolist() for step in range(len(plan))] == [
        rows.tolist() for rows in plan_batches(lengths, 900, seed=0, epoch=0)
    ]
