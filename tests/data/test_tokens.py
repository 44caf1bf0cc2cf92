"""Word-level tokens of item texts."""

from __future__ import annotations

import numpy as np

from uqabench.data.tokens import build_tokens, words


def test_words():
    assert words("Sft Drnk, 2-Liter (BTL_carb)") == ["sft", "drnk", "2", "liter", "btl", "carb"]
    assert words("Crème BRÛLÉE") == ["crème", "brûlée"]
    assert words("红苹果 iPhone15手机") == ["红", "苹", "果", "iphone15", "手", "机"]
    assert words("--- !") == []


def test_shared_table_and_offsets():
    tokens, vocabulary = build_tokens({"title": ["red apple", "...", "red red pear"], "shop": ["apple store"]}, 100)
    assert vocabulary == ["apple", "red", "pear", "store"]  # by number of strings, then by alphabet
    offsets, ids = tokens["title"]
    assert (offsets.dtype, ids.dtype) == (np.int64, np.int32)
    assert offsets.tolist() == [0, 2, 2, 5] and ids.tolist() == [1, 0, 1, 1, 2]
    assert tokens["shop"][1].tolist() == [0, 3]


def test_rare_words_are_left_out_of_a_small_table():
    tokens, vocabulary = build_tokens({"title": ["a b", "a c", "b"], "brand": []}, 2)
    assert vocabulary == ["a", "b"]
    assert tokens["title"][0].tolist() == [0, 2, 3, 4] and tokens["title"][1].tolist() == [0, 1, 0, 1]
    assert tokens["brand"][0].tolist() == [0] and tokens["brand"][1].dtype == np.int32
