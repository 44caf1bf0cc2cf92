"""The split and the anonymisation: disjoint, reproducible, and independent of one another."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from uqabench.data.anonymise import anonymise, fingerprint, read_salt
from uqabench.data.split import (
    EVALUATION,
    TRAIN,
    VALIDATION,
    name_digests,
    published_order,
    sequence_digests,
    split_hash,
    split_users,
    two_sided,
)
from uqabench.errors import InputError

IDS = [f"user {i}" for i in range(200)]


@settings(max_examples=50)
@given(size=st.integers(2, 60), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**32))
def test_sizes_and_order_do_not_matter(size, fraction, seed):
    ids = IDS[:size]
    split = split_users(ids, fraction, seed)
    assert int((split == EVALUATION).sum()) == min(max(round(fraction * size), 1), size - 1)
    shuffled = random.Random(seed).sample(ids, size)
    again = dict(zip(shuffled, split_users(shuffled, fraction, seed).tolist(), strict=True))
    assert [again[user] for user in ids] == split.tolist()
    digests = [user.encode() for user in ids]
    shuffled_split = np.array([again[user] for user in shuffled])
    assert split_hash(digests, split) == split_hash([user.encode() for user in shuffled], shuffled_split)


def test_another_seed_is_another_split_with_another_hash():
    first, second = split_users(IDS, 0.1, 0), split_users(IDS, 0.1, 1)
    assert not np.array_equal(first, second)
    digests = [user.encode() for user in IDS]
    assert split_hash(digests, first) != split_hash(digests, second) != split_hash(digests, 1 - second)


@settings(max_examples=50)
@given(
    size=st.integers(3, 60),
    fraction=st.floats(0.01, 0.6),
    validation=st.floats(0.001, 0.999),
    seeds=st.tuples(st.integers(0, 2**32), st.integers(0, 2**32)),
)
def test_validation_users_are_taken_from_training_and_evaluation_stays(size, fraction, validation, seeds):
    ids = IDS[:size]
    assume(size - min(max(round(fraction * size), 1), size - 1) >= 2)  # training and validation need a user each
    without, split = split_users(ids, fraction, seeds[0]), split_users(ids, fraction, seeds[0], validation, seeds[1])
    assert two_sided(split).tolist() == without.tolist() and set(without.tolist()) == {TRAIN, EVALUATION}
    others = int((without == TRAIN).sum())
    assert int((split == VALIDATION).sum()) == min(max(round(validation * others), 1), others - 1)
    assert int((split == TRAIN).sum()) >= 1
    shuffled = random.Random(seeds[1]).sample(ids, size)
    again = dict(zip(shuffled, split_users(shuffled, fraction, seeds[0], validation, seeds[1]).tolist(), strict=True))
    assert [again[user] for user in ids] == split.tolist()
    digests = [user.encode() for user in ids]
    assert split_hash(digests, two_sided(split)) == split_hash(digests, without) != split_hash(digests, split)


def test_the_validation_seed_moves_validation_users_alone():
    splits = [split_users(IDS, 0.1, 0, 0.2, seed) for seed in range(3)]
    assert len({tuple(np.flatnonzero(split == EVALUATION)) for split in splits}) == 1
    assert len({tuple(np.flatnonzero(split == VALIDATION)) for split in splits}) == 3


def test_training_and_validation_need_two_users():
    with pytest.raises(InputError, match="training and validation need two"):
        split_users(["a", "b"], 0.5, 0, 0.1)


def test_digests_are_of_each_user_s_own_rows():
    offsets, rows = np.array([0, 2, 2, 4, 6]), np.array([1, 2, 1, 2, 2, 1])
    first, empty, second, third = sequence_digests(offsets, [rows])
    assert first == second and len({first, empty, third}) == 3
    timed = sequence_digests(offsets, [rows, np.arange(6)])
    assert len(set(timed)) == 4 and timed[1] == empty
    assert name_digests(["a", "b"]).tolist() == name_digests(["b", "a"])[::-1].tolist()


@given(size=st.integers(1, 30), seed=st.integers(0, 2**32))
@settings(max_examples=30)
def test_the_order_is_of_the_sequences_and_among_equal_ones_of_the_salt(size, seed):
    rng = random.Random(seed)
    digests = [bytes([rng.randrange(4)]) for _ in range(size)]
    split = np.array([rng.randrange(2) for _ in range(size)], np.int8)
    orders = [published_order(digests, split, anonymise(IDS[:size], salt * 16)) for salt in (b"a", b"b")]
    seen = [[(digests[user], int(split[user])) for user in order] for order in orders]
    assert seen[0] == seen[1] == sorted(seen[0]) and sorted(orders[0].tolist()) == list(range(size))
    three = np.where((split == TRAIN) & (np.arange(size) % 3 == 0), VALIDATION, split)
    places = published_order(digests, three, anonymise(IDS[:size], b"a" * 16))
    evaluate = [(place, user) for place, user in enumerate(orders[0]) if split[user] == EVALUATION]
    assert evaluate == [(place, user) for place, user in enumerate(places) if three[user] == EVALUATION]


def test_one_user_cannot_be_split():
    with pytest.raises(InputError, match="a split needs two"):
        split_users(["only"], 0.1, 0)


def test_digests_depend_on_the_salt_alone(tmp_path):
    (tmp_path / "salt").write_bytes(b"0123456789abcdef" * 8)  # longer than a BLAKE2b key
    salt = read_salt(tmp_path / "salt")
    assert anonymise(IDS, salt) == anonymise(IDS, read_salt(tmp_path / "salt"))
    assert len(set(anonymise(IDS, salt))) == len(IDS)
    assert not set(anonymise(IDS, salt)) & set(anonymise(IDS, read_salt(None)))
    assert fingerprint(salt) != fingerprint(salt[:-1])


def test_a_guessable_or_missing_salt_is_refused(tmp_path):
    (tmp_path / "salt").write_bytes(b"secret")
    with pytest.raises(InputError, match="6 bytes and needs 16"):
        read_salt(tmp_path / "salt")
    with pytest.raises(InputError, match="cannot be read"):
        read_salt(tmp_path / "nothing")
