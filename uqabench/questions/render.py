"""Questions, options and histories as text, in any language that the templates know."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uqabench.data.catalogue import ATTRIBUTES, Catalogue
from uqabench.data.store import InteractionStore
from uqabench.errors import InputError
from uqabench.questions.kinds import KINDS
from uqabench.questions.questions import QuestionSet
from uqabench.questions.templates import Language, Templates, domain_words
from uqabench.vocabulary import LETTERS

# Control characters, line and paragraph separators, and halves of characters that no encoding can write.
_NO_TEXT = ("Cc", "Zl", "Zp", "Cs")


@dataclass(frozen=True)
class RenderedQuestion:
    """A question in words: its text, its four options, and an instruction (empty where none is needed).

    option_line and cue are the language's words for a lettered option and for "answer now".
    """

    question: str
    options: list[str]
    instruction: str
    option_line: str
    cue: str


def history_items(store: InteractionStore, user: int, cut: int, n: int) -> np.ndarray:
    """int32: the items that a question at `cut` is about, h = s[max(0, cut - n):cut]."""
    return store.sequence(user)[max(0, cut - n) : cut]


def render(
    questions: QuestionSet,
    i: int,
    catalogue: Catalogue,
    lang: str = "en",
    templates: Templates | None = None,
) -> RenderedQuestion:
    """Question `i` in words; `templates`: the built-in ones by default.

    Raises InputError for a language without templates, or a code that the catalogue does not have.
    """
    language = _language(lang, templates)
    index = int(questions.kind[i])
    kind, words = KINDS[index], language.words
    attribute = ATTRIBUTES[questions.attribute[i]] if questions.attribute[i] >= 0 else None

    def text(code: int) -> str:
        return value_text(catalogue, str(attribute), code)

    values = {**domain_words(words, questions.extra.get("domain", "click"))}
    values |= kind.placeholders(questions.parameters(i), words, text)
    if attribute is not None:
        values["attribute"] = words["attribute"][attribute]
    phrasings = language.phrasings[index]
    question = phrasings[int(questions.template[i]) % len(phrasings)].format(**values)
    shown = str if kind.counts else text
    options = [kind.option_text([shown(value) for value in option], words) for option in questions.options(i)]
    return RenderedQuestion(question, options, language.instructions[index], words["option"], words["answer"])


def render_item(
    catalogue: Catalogue,
    item: int,
    attributes: Sequence[str] | None = None,
    lang: str = "en",
    templates: Templates | None = None,
) -> str:
    """One item as one line, "title | category | brand | shop": the values (`value_text`), those it lacks left out.

    attributes: which ones and in which order; by default all that questions can ask about.
    """
    separator = _language(lang, templates).words["item_separator"]
    names = ATTRIBUTES[:4] if attributes is None else attributes
    unknown = [name for name in names if name not in ATTRIBUTES]
    if unknown:
        raise InputError(f"Items have no attribute '{unknown[0]}': choose from {', '.join(ATTRIBUTES)}.")
    coded = ((name, int(catalogue.codes[name][item])) for name in names)
    return separator.join(value_text(catalogue, name, code) for name, code in coded if code >= 0)


def value_text(catalogue: Catalogue, attribute: str, code: int) -> str:
    """A value of the catalogue on one line: every stretch of white space and control characters is one blank.

    A line break in a title would make an option of its own.
    """
    return _one_line(catalogue.text(attribute, code))


def value_texts(catalogue: Catalogue, attribute: str) -> list[str]:
    """All values of an attribute as `value_text` renders them, by code."""
    return [_one_line(text) for text in catalogue.values[attribute]]


def _one_line(text: str) -> str:
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(character) in _NO_TEXT else character for character in text)
    return " ".join(text.split())


def format_question(rendered: RenderedQuestion) -> str:
    """One user message: the question (and instruction), an option a line with its letter, and the cue to answer."""
    head = " ".join(part for part in (rendered.question, rendered.instruction) if part)
    lettered = zip(LETTERS, rendered.options, strict=True)
    lines = [rendered.option_line.format(letter=letter, text=text) for letter, text in lettered]
    return "\n".join([head, *lines, rendered.cue])


def _language(lang: str, templates: Templates | None) -> Language:
    known = (Templates.load() if templates is None else templates).languages
    if lang not in known:
        raise InputError(f"There are no templates in language '{lang}': choose from {', '.join(known)}.")
    return known[lang]
