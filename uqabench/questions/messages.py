"""The user's messages as text: histories, questions and options, before any language model reads them."""

from __future__ import annotations

import numpy as np

from uqabench.data.store import InteractionStore
from uqabench.questions.questions import QuestionSet
from uqabench.questions.render import RenderedQuestion, format_question, history_items, render, render_item
from uqabench.questions.templates import Templates
from uqabench.settings.llm import PromptConfig


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

    def message(self, questions: QuestionSet, row: int) -> str:
        """One question and its options as the user's message: rendered, or in the words that it came with."""
        if questions.texts is not None:
            return questions.texts[row]
        return format_question(self.question(questions, row))

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
        return self.with_history(questions, row, self.message(questions, row), n_text)
