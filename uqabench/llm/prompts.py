"""From questions to token ids: text histories, soft-prompt slots, and the chat around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uqabench.data.catalogue import ATTRIBUTES
from uqabench.llm.language_model import LanguageModel
from uqabench.questions.render import RenderedQuestion, format_question, history_items, render, render_item
from uqabench.settings.llm import PromptConfig

if TYPE_CHECKING:
    from uqabench.data.store import InteractionStore
    from uqabench.questions.questions import QuestionSet
    from uqabench.questions.templates import Templates

SOFT = -1  # stands in a prompt's ids where a soft-prompt vector goes
_LONGEST = 256  # prompts that are encoded to find the longest


class PromptText:
    """The user's messages as text: histories, questions and options."""

    def __init__(self, store: InteractionStore, templates: Templates, config: PromptConfig) -> None:
        self.store, self.templates, self.config = store, templates, config
        self.attributes = config.attributes or tuple(a for a in store.catalogue.attributes() if a != "seller")
        self._lines: dict[int, str] = {}

    def item_line(self, item: int) -> str:
        """One item as one line of text."""
        line = self._lines.get(item)
        if line is None:
            line = render_item(self.store.catalogue, item, self.attributes, self.config.language)
            self._lines[item] = line
        return line

    def history_text(self, user: int, cut: int, n_text: int, *, by_basket: bool = False) -> str:
        """The last `n_text` items before `cut`, oldest first, one a line; `by_basket`: a blank line between baskets."""
        items = history_items(self.store, user, cut, n_text)
        starts = self.store.basket_starts(user)[cut - len(items) : cut]
        if not by_basket or starts[1:].all():
            return self.items_text(items)
        lines = [self.config.history_header]
        for index, item in enumerate(items.tolist()):
            lines += [""] if index and starts[index] else []
            lines.append(self.item_line(item))
        return "\n".join(lines)

    def items_text(self, items: np.ndarray) -> str:
        """Items as a text history, one a line."""
        return "\n".join([self.config.history_header, *(self.item_line(int(item)) for item in items)])

    def question(self, questions: QuestionSet, row: int) -> RenderedQuestion:
        """One question in words."""
        return render(questions, row, self.store.catalogue, self.config.language, self.templates)

    def with_history(self, questions: QuestionSet, row: int, content: str, n_text: int) -> str:
        """The user's message: the text history of a question, if any, in front of `content`."""
        if n_text == 0:
            return content
        # The benchmark's history has at most N items: a longer text would see more than the encoder does.
        n = min(n_text, questions.n_history)
        user, cut = int(questions.user[row]), int(questions.cut[row])
        return self.history_text(user, cut, n, by_basket=questions.by_basket) + "\n" + content

    def content(self, questions: QuestionSet, row: int, n_text: int) -> str:
        """The user's message: the text history if any, the question, its options."""
        return self.with_history(questions, row, format_question(self.question(questions, row)), n_text)


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
        language = self.templates.languages[self.config.language]
        asked, owner = np.unique(np.stack([questions.kind, questions.template]), axis=1, return_inverse=True)
        wording = [
            len((phrasings := language.phrasings[kind])[template % len(phrasings)] + language.instructions[kind])
            for kind, template in asked.T.tolist()
        ]
        size = np.array(wording, dtype=np.int64)[owner.ravel()]
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

    def encode(self, questions: QuestionSet, rows: np.ndarray, *, n_text: int = 0, n_soft: int = 0) -> list[np.ndarray]:
        """Prompt ids (int64, SOFT at soft-prompt slots) of the given rows, up to where the answer begins."""
        contents = [format_question(self.question(questions, int(row))) for row in rows]
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
        ids = self.lm.encode_messages(self.lm.chat_before, full)
        return [np.array(soft + row, dtype=np.int64) for row in ids]
