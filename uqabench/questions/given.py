"""Questions that came with the data, as a question set: asked in their own words, answered by letter."""

from __future__ import annotations

from typing import Any

import numpy as np

from uqabench.data.official import GivenQuestions
from uqabench.data.store import InteractionStore
from uqabench.errors import InputError
from uqabench.questions.declaration import LONGEST_ANSWER, OPTIONS
from uqabench.questions.questions import QuestionSet
from uqabench.vocabulary import GIVEN_QUESTIONS, SUBTASKS


def given_questions(store: InteractionStore, split: str, n_history: int) -> tuple[QuestionSet, dict[str, Any]]:
    """(all questions of a split that came with the store, the report of what there is).

    n_history: the items before a cut that a method may see. InputError where the store has no questions.
    """
    if store.path is None:
        raise InputError("A store made by hand has no questions of its own: generate them.")
    found = GivenQuestions.open(store.path, split, store.lengths)
    if not len(found):
        raise InputError(f"{store.path} came without questions of the {split} side: set questions.version to v1 or v2.")
    n = len(found)
    questions = QuestionSet(
        user=found.user,
        cut=found.cut,
        subtask=found.subtask,
        kind=np.full(n, -1, np.int16),
        template=np.zeros(n, np.int16),
        attribute=np.full(n, -1, np.int8),
        params=np.zeros((n, 4), np.int32),
        option_values=np.full((n, OPTIONS, LONGEST_ANSWER), -1, np.int32),
        option_lengths=np.zeros((n, OPTIONS), np.int8),
        answer=found.answer,
        n_history=n_history,
        split=split,
        split_hash=store.split_hash,
        version=GIVEN_QUESTIONS,
        texts=found.texts,
    )
    counts = {name: int((found.subtask == i).sum()) for i, name in enumerate(SUBTASKS)}
    return questions, {"counts": {name: count for name, count in counts.items() if count}, "notes": []}
