"""Questions, options and histories as text, in any language that the templates know."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uqabench.data.catalogue import ATTRIBUTES, Catalogue
from uqabench.data.store import InteractionStore
from uqabench.errors import InputError
from uqabench.questions.kinds import IT_PATH, KINDS, OPTIONS
from uqabench.questions.questions import QuestionSet
from uqabench.questions.templates import Language, Templates
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
    kind = int(questions.kind[i])
    attribute = int(questions.attribute[i])
    phrasings = language.phrasings[kind]
    text = phrasings[int(questions.template[i]) % len(phrasings)].format(
        **_placeholders(questions, i, catalogue, language)
    )
    options = [_option(questions.option(i, place), kind, attribute, catalogue, language) for place in range(OPTIONS)]
    words = language.words
    return RenderedQuestion(text, options, language.instructions[kind], words["option"], words["answer"])


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


def _placeholders(questions: QuestionSet, i: int, catalogue: Catalogue, language: Language) -> dict[str, object]:
    names = KINDS[questions.kind[i]].params
    params = {name: int(value) for name, value in zip(names, questions.params[i], strict=False)}
    attribute = int(questions.attribute[i])
    words = language.words
    values: dict[str, object] = dict(params)
    if attribute >= 0:
        values["attribute"] = words["attribute"][ATTRIBUTES[attribute]]
    if "target" in params:
        values["value"] = value_text(catalogue, ATTRIBUTES[attribute], params["target"])
    if "k" in params:
        values["recency"] = words["recency"][params["k"]]
    if "n" in params:
        values["ordinal"] = words["ordinal"].format(n=params["n"], suffix=_suffix(params["n"]))
    return values


def _option(option: tuple[int, ...], kind: int, attribute: int, catalogue: Catalogue, language: Language) -> str:
    if KINDS[kind].counts:
        return str(option[0])
    texts = [value_text(catalogue, ATTRIBUTES[attribute], code) for code in option]
    if kind != IT_PATH:
        return language.words["list_separator"].join(texts)
    if len(texts) == 1:
        return language.words["no_change"].format(value=texts[0])
    return language.words["path_separator"].join(texts)


def _suffix(n: int) -> str:
    """English: 1st, 2nd, 3rd, 4th, 11th."""
    return "th" if n // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
