"""What a kind of question declares, and the limits that all kinds keep.

A file in `questions/kinds` holds one family: the kinds of question that one compiled generator makes. Beside it lies a
YAML file of the same name with their phrasings. `kinds/__init__.py` lists the families; nothing else knows them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uqabench.vocabulary import QUESTION_VERSIONS

ASKED = ("title", "category", "brand", "shop")
"""Attributes a question can ask about; their indices are those in `uqabench.data.catalogue.ATTRIBUTES`."""
SIDE = ("category", "brand", "shop")

OPTIONS = 4
LONGEST_ANSWER = 3
"""No answer lists more than three values (df: k < 4; li: three; it: thirds)."""

PHRASING_CYCLE = 27720
"""A question stores a phrasing in 0..27719 and takes it modulo the phrasings its kind has: the least common multiple
of 1..12, so every phrasing is equally likely for up to twelve of them, whatever template file is used later."""


@dataclass(frozen=True)
class Word:
    """An entry of a language's `words`: a text with placeholders, or (with `keys`) a table of texts without any.

    needed: placeholders that the text must hold. optional: those that it may hold too. required: whether a language
    must have the entry.
    """

    needed: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    keys: tuple[Any, ...] = ()
    required: bool = True


@dataclass(frozen=True)
class Evidence:
    """What the oracle reads to answer a question; nothing of it comes from generation.

    texts: the attribute's value of every item of h, oldest first, as a reader compares them (case and spacing do not
    count), None where an item lacks it. baskets: the same texts, one list for each basket of h, of the first of which h
    may hold a part. following: the same for the basket that begins at the cut. params: the question's parameters by
    name. text: from a code of the attribute to its text.
    """

    texts: Sequence[str | None]
    baskets: Sequence[Sequence[str | None]]
    following: Sequence[str | None]
    params: Mapping[str, int]
    text: Callable[[int], str | None]


def parameters_alone(
    params: Mapping[str, int], words: Mapping[str, Any], text: Callable[[int], str]
) -> dict[str, object]:
    """Placeholders of a kind whose phrasings show its parameters as they are."""
    return dict(params)


def joined(texts: Sequence[str], words: Mapping[str, Any]) -> str:
    """An option as the list of its values."""
    return words["list_separator"].join(texts)


@dataclass(frozen=True, eq=False)
class Kind:
    """One way of asking; h is the history s[max(0, cut - N):cut] that a question is about.

    name: its key in the template files. subtask: an entry of `vocabulary.SUBTASKS`. attributes: what it may ask about
    (empty: nothing). answers: the oracle's rule, from `Evidence` to all right answers, each a list of texts (or one
    count); of the four options exactly one is among them. params: names of the leading entries of a question's
    parameters. counts: options are counts, not codes. ordered: an option lists several values and their order matters.
    unordered_history: the answer can be read from what h holds, without positions and counts, so that one vector of the
    whole history can carry it. level: how wrong options are matched, where a sub-task is asked and scored at several
    levels.

    wording: the entry of the template files that holds its phrasings; by default that of its own name.
    needed: placeholders without which a phrasing would ask something else, one of each set; allowed: further ones.
    placeholders: their values, from (parameters, the language's words, text of a code); {attribute} is always there
    for kinds that ask about one. option_text: an option in words, from the texts of its values.
    """

    name: str
    subtask: str
    attributes: tuple[str, ...]
    answers: Callable[[Evidence], list[list[Any]]]
    params: tuple[str, ...] = ()
    counts: bool = False
    ordered: bool = False
    unordered_history: bool = True
    level: str = ""
    wording: str = ""
    needed: tuple[frozenset[str], ...] = ()
    allowed: frozenset[str] = frozenset()
    placeholders: Callable[..., dict[str, object]] = parameters_alone
    option_text: Callable[[Sequence[str], Mapping[str, Any]], str] = joined

    @property
    def template(self) -> str:
        """The kind's entry in the template files."""
        return self.wording or self.name


@dataclass(frozen=True, eq=False)
class Family:
    """The kinds of question that one generator makes; all serve one sub-task.

    file: the `__file__` of the module that declares it; its phrasings lie in the YAML file of the same name.
    versions: the question versions that it is part of.
    draw_attribute: compiled, (context, state) → attribute, the first thing that is drawn for a candidate; -1: see
    `core.attributes`.
    generate: compiled, (context, asked, state, records, row) → outcome: writes one candidate into a row of `Records`,
    its kind as an index in `kinds`, and returns a code of `core.context.REASONS`.
    right_answer: compiled, (context, codes, starts, out, tallies) → (outcome, length): the answer for a history's
    codes, where `starts` says at which of them a basket begins and `tallies` is for `count_codes`. A family that has it
    can draw wrong options from the right answers of training histories (see `questions.pools`).
    single_limit: the largest share of questions whose right answer lists a single value; None: no limit.
    single_pool_share: the share to which such answers are thinned in the pool.
    words: entries of a language's `words` that only this family uses.
    """

    kinds: tuple[Kind, ...]
    file: str
    generate: Callable[..., int]
    draw_attribute: Callable[..., int]
    versions: tuple[str, ...] = QUESTION_VERSIONS
    right_answer: Callable[..., tuple[int, int]] | None = None
    single_limit: float | None = None
    single_pool_share: float | None = None
    words: Mapping[str, Word] = field(default_factory=dict)

    @property
    def subtask(self) -> str:
        """The sub-task that all kinds of the family serve."""
        return self.kinds[0].subtask


def most_frequent(texts: Sequence[str | None], n: int) -> list[list[str]]:
    """The one right answer "the n most frequent texts, most frequent first"; none where ties (or too few) leave that
    open."""
    ranked = Counter(text for text in texts if text is not None).most_common()
    counts = [count for _, count in ranked[: n + 1]] + [0]
    if len(ranked) < n or len(set(counts[: n + 1])) < n + 1:
        return []
    return [[text for text, _ in ranked[:n]]]


def path(parts: Sequence[Sequence[str | None]]) -> list[list[str]]:
    """The one right answer "the most frequent text of each part, equal neighbours merged"; none where ties leave that
    open."""
    merged: list[str] = []
    for part in parts:
        top = most_frequent(part, 1)
        if not top:
            return []
        merged += [] if merged[-1:] == top[0] else top[0]
    return [merged]


def needs(*alternatives: str) -> frozenset[str]:
    """One set of placeholders for `Kind.needed`: a phrasing must hold at least one of them."""
    return frozenset(alternatives)
