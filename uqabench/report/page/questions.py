"""The questions of a page as columns: what is asked, about whom, the texts, and the histories."""

from __future__ import annotations

from typing import Any

import numpy as np

from uqabench.data.catalogue import ATTRIBUTES
from uqabench.data.store import InteractionStore
from uqabench.questions.kinds import KINDS
from uqabench.questions.messages import PromptText
from uqabench.questions.questions import QuestionSet
from uqabench.questions.render import render
from uqabench.questions.templates import Templates
from uqabench.report.found import Found, Stages
from uqabench.report.page.columns import Columns, Texts
from uqabench.settings.llm import PromptConfig
from uqabench.settings.reader import from_dict
from uqabench.vocabulary import SUBTASKS

_LEVELS = ("", *sorted({kind.level for kind in KINDS if kind.level}))


class Asked:
    """The questions of all question sets that a page's answers are about, one set behind the other."""

    def __init__(self, found: Found, stages: Stages) -> None:
        self._found, self._stages = found, stages
        self._templates = Templates.load(found.settings.get("questions", {}).get("templates"))
        self._prompt = from_dict(PromptConfig, found.settings.get("prompt", {}), "prompt")
        self.sets: list[tuple[QuestionSet, InteractionStore]] = []
        self._stores: dict[str, InteractionStore] = {}
        self._first: dict[tuple[str, str], int] = {}
        self.total = 0

    def first(self, inputs: dict[str, str]) -> tuple[int, QuestionSet]:
        """The questions that a stage with these inputs answered, and where on the page they begin."""
        key = (inputs["questions"], inputs["data"])
        if key not in self._first:
            if key[1] not in self._stores:
                self._stores[key[1]] = self._stages.store(key[1])
            questions = self._stages.questions(key[0])
            self._first[key] = self.total
            self.sets.append((questions, self._stores[key[1]]))
            self.total += len(questions)
        index = list(self._first).index(key)
        return self._first[key], self.sets[index][0]

    def columns(self, columns: Columns, texts: Texts) -> dict[str, Any]:
        """The header's part about questions: a column a fact, Q questions, and the histories of the U users."""
        parts: dict[str, list[np.ndarray]] = {}
        users = _Users(texts)
        for number, (questions, store) in enumerate(self.sets):
            prompts = PromptText(store, self._templates, self._prompt)
            length = np.minimum(questions.cut, questions.n_history)
            shown = [
                render(questions, i, store.catalogue, self._prompt.language, self._templates)
                for i in range(len(questions))
            ]
            of_set = {
                "set": np.full(len(questions), number),
                "id": np.arange(len(questions)),
                "user": users.add(questions, length, store, prompts),
                "cut": questions.cut,
                "history": length,
                "subtask": questions.subtask,
                "kind": questions.kind,
                "attribute": questions.attribute.astype(np.int64) + 1,
                "level": np.array([_LEVELS.index(KINDS[kind].level) for kind in questions.kind]),
                "answer": questions.answer,
                "text": np.array([texts.number(f"{each.question} {each.instruction}".strip()) for each in shown]),
                "options": np.array([[texts.number(option) for option in each.options] for each in shown]),
            }
            for name, values in of_set.items():
                parts.setdefault(name, []).append(values)
        return {
            "questions": {name: columns.add(np.concatenate(values)) for name, values in parts.items()},
            "sets": [{"history": q.n_history, "baskets": q.by_basket, "version": q.version} for q, _ in self.sets],
            "users": users.columns(columns),
            "subtasks": list(SUBTASKS),
            "kinds": [kind.name for kind in KINDS],
            "attributes": ["", *ATTRIBUTES],
            "levels": list(_LEVELS),
        }


class _Users:
    """The users whom questions are about, with the part of each one's sequence that some question's history holds.

    A user is told by the store's number, which is the rank of a digest of the sequence and no id of the log's.
    """

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._count = 0
        self._parts: dict[str, list[np.ndarray]] = {"number": [], "start": [], "length": [], "lines": [], "basket": []}

    def add(
        self, questions: QuestionSet, length: np.ndarray, store: InteractionStore, prompts: PromptText
    ) -> np.ndarray:
        """Keep the users of a question set; returns (Q,) their places on the page."""
        numbers, place = np.unique(questions.user, return_inverse=True)
        start = np.full(len(numbers), np.iinfo(np.int64).max)
        end = np.zeros(len(numbers), np.int64)
        np.minimum.at(start, place, questions.cut - length)
        np.maximum.at(end, place, questions.cut)
        spans = [slice(*span) for span in zip(start.tolist(), end.tolist(), strict=True)]
        items = np.concatenate([store.sequence(int(u))[span] for u, span in zip(numbers, spans, strict=True)])
        basket = [store.basket_starts(int(u))[span] for u, span in zip(numbers, spans, strict=True)]
        distinct, where = np.unique(items, return_inverse=True)
        lines = np.array([self._texts.number(prompts.item_line(int(item))) for item in distinct])
        found = {"number": numbers, "start": start, "length": end - start, "lines": lines[where]}
        for name, values in {**found, "basket": np.concatenate(basket)}.items():
            self._parts[name].append(values)
        first, self._count = self._count, self._count + len(numbers)
        return first + place

    def columns(self, columns: Columns) -> dict[str, Any]:
        return {name: columns.add(np.concatenate(values)) for name, values in self._parts.items()}
