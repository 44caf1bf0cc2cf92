"""Counting within a history, against `collections.Counter`."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from uqabench.questions.core.context import ACCEPTED, no_tallies
from uqabench.questions.core.histories import count_codes, dominant
from uqabench.questions.declaration import LONGEST_ANSWER, most_frequent
from uqabench.questions.kinds.long_term_interest import top_three

CODES = st.lists(st.integers(-1, 6), max_size=40).map(lambda codes: np.array(codes, np.int32))
few = settings(max_examples=200)


@few
@given(CODES)
def test_codes_are_counted_in_the_order_in_which_they_occur(codes):
    tallies = no_tallies(7)
    values, counts = count_codes(codes, tallies)
    expected = Counter(code for code in codes.tolist() if code >= 0)
    assert list(zip(values.tolist(), counts.tolist(), strict=True)) == list(expected.items())
    assert not tallies.any()


@few
@given(CODES)
def test_the_most_frequent_code_is_one_or_none(codes):
    ranked = Counter(code for code in codes.tolist() if code >= 0).most_common()
    several = len(ranked) > 1 and ranked[0][1] == ranked[1][1]
    assert dominant(codes, no_tallies(7)) == (-1 if not ranked else -2 if several else ranked[0][0])


@few
@given(CODES)
def test_the_top_three_are_those_that_the_oracle_names(codes):
    out, tallies = np.full(LONGEST_ANSWER, -1, np.int32), no_tallies(7)
    status, length = top_three(None, codes, np.ones(len(codes), bool), out, tallies)
    expected = most_frequent([None if code < 0 else str(code) for code in codes.tolist()], LONGEST_ANSWER)
    assert (status == ACCEPTED) == bool(expected) and not tallies.any()
    if expected:
        assert [str(code) for code in out] == expected[0] and length == LONGEST_ANSWER
