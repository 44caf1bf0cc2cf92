"""The split and the anonymisation: disjoint, reproducible, and independent of one another."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uqabench.data.anonymise import anonymise, fingerprint, read_salt
from uqabench.data.split import EVALUATION, split_hash, split_users
from uqabench.errors import InputError

IDS = [f"user {i}" for i in range(200)]


@settings(max_examples=50, deadline=None)
@given(size=st.integers(2, 60), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**32))
def test_sizes_and_order_do_not_matter(size, fraction, seed):
    ids = IDS[:size]
    split = split_users(ids, fraction, seed)
    assert int((split == EVALUATION).sum()) == min(max(round(fraction * size), 1), size - 1)
    shuffled = random.Random(seed).sample(ids, size)
    again = dict(zip(shuffled, split_users(shuffled, fraction, seed).tolist(), strict=True))
    assert [again[user] for user in ids] == split.tolist()
    assert split_hash(ids, split) == split_hash(shuffled, np.array([again[user] for user in shuffled]))


def test_another_seed_is_another_split_with_another_hash():
    first, second = split_users(IDS, 0.1, 0), split_users(IDS, 0.1, 1)
    assert not np.array_equal(first, second)
    assert split_hash(IDS, first) != split_hash(IDS, second)


def test_hash_sees_sides_and_ids():
    split = split_users(IDS, 0.1, 0)
    assert split_hash(IDS, 1 - split) != split_hash(IDS, split)
    assert split_hash(["a", "bc"], np.array([0, 1])) != split_hash(["ab", "c"], np.array([0, 1]))


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
