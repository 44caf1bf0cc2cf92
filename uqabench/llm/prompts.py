"""From questions to token ids: text histories, soft-prompt slots, and the chat around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uqabench.data.catalogue import ATTRIBUTES
from uqabench.llm.language_model import LanguageModel
from uqabench.questions.messages import PromptText
from uqabench.questions.render import history_items
from uqabench.settings.llm import PromptConfig

if TYPE_CHECKING:
    from uqabench.data.store import InteractionStore
    from uqabench.questions.questions import QuestionSet
    from uqabench.questions.templates import Templates

SOFT = -1  # stands in a prompt's ids where a soft-prompt vector goes
_LONGEST = 256  # prompts that are encoded to find the longest


class PromptBuilder(PromptText):
    """Prompts as token ids for one language model. What the user's message says is plain text: whatever stands in the
    data, the control tokens of a prompt are those of the chat template."""

    def __init__(self, lm: LanguageModel, store: InteractionStore, templates: Templates, config: PromptConfig) -> None:
        super().__init__(store, templates, config)
        self.lm = lm

    def item_line(self, item: int) -> str:
        """One item as one line of plain text."""
        line = self._lines.get(item)
        if line is None:
            line = self._lines[item] = self.lm.control.split(super().item_line(item))
        return line

    def longest(self, questions: QuestionSet, *, n_text: int = 0, n_soft: int = 0) -> int:
        """Tokens of the longest prompt among those whose values are the longest text; 0 without questions."""
        rows = np.argsort(-self._text_size(questions, n_text), kind="stable")[:_LONGEST]
        return max(map(len, self.encode(questions, rows, n_text=n_text, n_soft=n_soft)), default=0)

    def _text_size(self, questions: QuestionSet, n_text: int) -> np.ndarray:
        """Bytes (Q,) of each question's wording and of the values that its history and options show."""
        catalogue = self.store.catalogue
        sizes = {
            name: np.array([len(v.encode("utf-8", "replace")) for v in catalogue.values[name]] + [0])
            for name in catalogue.attributes()
        }
        size = self._wording_size(questions)
        for place, name in enumerate(ATTRIBUTES):
            rows = np.flatnonzero(questions.attribute == place) if name in sizes else []
            if len(rows):  # counts are no codes; a code of -1 has the size 0 at the end
                codes = np.minimum(questions.option_values[rows], len(sizes[name]) - 1)
                size[rows] += sizes[name][codes].sum(axis=(1, 2))
        n = min(n_text, questions.n_history)
        if n:
            item_size = sum(sizes[name][catalogue.codes[name]] for name in self.attributes if name in sizes)
            pairs, owner = np.unique(np.stack([questions.user, questions.cut], axis=1), axis=0, return_inverse=True)
            histories = [item_size[history_items(self.store, int(user), int(cut), n)].sum() for user, cut in pairs]
            size += np.array(histories, dtype=np.int64)[owner.ravel()]
        return size

    def _wording_size(self, questions: QuestionSet) -> np.ndarray:
        """Bytes (Q,) of each question's wording, without the values that it shows."""
        if questions.texts is not None:
            return np.array([len(text.encode("utf-8", "replace")) for text in questions.texts], dtype=np.int64)
        language = self.templates.languages[self.config.language]
        asked, owner = np.unique(np.stack([questions.kind, questions.template]), axis=1, return_inverse=True)
        wording = [
            len((phrasings := language.phrasings[kind])[template % len(phrasings)] + language.instructions[kind])
            for kind, template in asked.T.tolist()
        ]
        return np.array(wording, dtype=np.int64)[owner.ravel()]

    def encode(self, questions: QuestionSet, rows: np.ndarray, *, n_text: int = 0, n_soft: int = 0) -> list[np.ndarray]:
        """Prompt ids (int64, SOFT at soft-prompt slots) of the given rows, up to where the answer begins."""
        contents = [self.message(questions, int(row)) for row in rows]
        return self.encode_contents(questions, rows, contents, n_text=n_text, n_soft=n_soft)

    def encode_contents(
        self, questions: QuestionSet, rows: np.ndarray, contents: list[str], *, n_text: int, n_soft: int
    ) -> list[np.ndarray]:
        """The same for messages of one's own about the histories of the given rows."""
        full = [
            self.with_history(questions, int(row), content, n_text) for row, content in zip(rows, contents, strict=True)
        ]
        soft = [SOFT] * n_soft
        if n_soft and self.config.soft_prompt_place == "before-question":
            head = self.lm.encode([self.lm.chat_before])[0] if self.lm.chat_before else []
            return [np.array(head + soft + tail, dtype=np.int64) for tail in self.lm.encode_messages("", full)]
        if n_soft and self.config.soft_prompt_place == "last":
            tail = self.lm.encode([self.lm.chat_after])[0]
            heads = self.lm.encode_messages(self.lm.chat_before, full, after="")
            return [np.array(head + soft + tail, dtype=np.int64) for head in heads]
        ids = self.lm.encode_messages(self.lm.chat_before, full)
        return [np.array(soft + row, dtype=np.int64) for row in ids]
