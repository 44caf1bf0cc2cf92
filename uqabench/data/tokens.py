"""Word-level tokens of item texts: the text side of the item tower, built once when a store is prepared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

# One ideograph, kana or hangul syllable is a token of its own, because those scripts put no spaces between words.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def words(text: str) -> list[str]:
    """Lower-cased runs of letters and digits; each CJK character stands alone."""
    return _WORD.findall(text.lower())


def build_tokens(
    values: Mapping[str, Iterable[str]], max_vocabulary: int
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], list[str]]:
    """Tokenise the distinct strings of every attribute with one shared table.

    Returns ({attribute: (offsets int64 (n_values + 1,), ids int32)}, vocabulary). A token's id is its place in the
    vocabulary: most frequent first (counted once for each distinct string it occurs in), ties in alphabetical order.
    Words beyond `max_vocabulary` are left out of the ids.
    """
    split = {attribute: [words(value) for value in strings] for attribute, strings in values.items()}
    counts = Counter(word for lists in split.values() for found in lists for word in set(found))
    vocabulary = sorted(counts, key=lambda word: (-counts[word], word))[:max_vocabulary]
    index = {word: i for i, word in enumerate(vocabulary)}
    tokens = {}
    for attribute, lists in split.items():
        ids = [[index[word] for word in found if word in index] for found in lists]
        offsets = np.zeros(len(ids) + 1, np.int64)
        np.cumsum([len(found) for found in ids], out=offsets[1:])
        tokens[attribute] = offsets, np.array([i for found in ids for i in found], np.int32)
    return tokens, vocabulary
