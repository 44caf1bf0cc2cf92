"""Phrasings of questions: YAML files beside the kinds, over which a user may lay a file of their own."""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from uqabench.errors import InputError
from uqabench.files import hash_json
from uqabench.questions.declaration import ASKED, Kind, Word, needs
from uqabench.questions.kinds import FAMILIES, KINDS
from uqabench.settings.reader import load_yaml, merge
from uqabench.vocabulary import DOMAINS

DOMAIN_WORDS = ("took", "takes", "thing")
"""Entries of `words` that say by the domain of the log what a user did, may do next, and with what. A language may lack
them; where it has them, every phrasing may use them as placeholders."""
_WORDS = {
    "attribute": Word(keys=ASKED),
    "list_separator": Word(),
    "option": Word(needed=needs("letter", "text")),
    "answer": Word(),
    "item_separator": Word(),
    **{name: Word(keys=DOMAINS, required=False) for name in DOMAIN_WORDS},
} | {name: word for family in FAMILIES for name, word in family.words.items()}


@dataclass(frozen=True)
class Language:
    """Words of one language, and by kind (its index in KINDS) the instruction and the phrasings.

    Kinds that are asked in the same words share them.
    """

    words: dict[str, Any]
    instructions: list[str]
    phrasings: list[list[str]]


@dataclass(frozen=True)
class Templates:
    """All languages by name, and the SHA-256 of what they say (equal templates have equal digests)."""

    languages: dict[str, Language]
    digest: str

    @classmethod
    def load(cls, path: Path | str | None = None) -> Templates:
        """The built-in templates, with the user's file laid over them kind by kind and word by word.

        Raises InputError naming the file, the language, the kind and the placeholder that do not fit.
        """
        if path is None:
            return _built_in()
        contents = "languages: write `en:` or `zh:` and kinds below it"
        own = load_yaml(path, "template file", contents, text_keys=False)
        return _from_raw(merge(_built_in_raw(), own), str(path))


@lru_cache(maxsize=1)
def _built_in_raw() -> dict[str, Any]:
    raw: dict[str, Any] = {}
    shared = resources.files("uqabench").joinpath("questions/words.yaml").read_text(encoding="utf-8")
    beside = {family.file: Path(family.file).with_suffix(".yaml") for family in FAMILIES}
    for text in (shared, *(path.read_text(encoding="utf-8") for path in beside.values())):
        raw = merge(raw, yaml.safe_load(text))
    return raw


@lru_cache(maxsize=1)
def _built_in() -> Templates:
    return _from_raw(_built_in_raw(), "templates")


def _from_raw(raw: dict[str, Any], file: str) -> Templates:
    languages = {str(name): _language(value, f"{file}: {name}") for name, value in raw.items()}
    said = {
        name: [_plain(language.words), language.instructions, language.phrasings]
        for name, language in languages.items()
    }
    return Templates(languages, hash_json(said))


def _language(raw: Any, where: str) -> Language:
    parts = _mapping(raw, where)
    _only(parts, ("words", "kinds"), where)
    words = _words(_mapping(parts.get("words"), f"{where}.words"), f"{where}.words")
    kinds = _mapping(parts.get("kinds"), f"{where}.kinds")
    _only(kinds, tuple(dict.fromkeys(kind.template for kind in KINDS)), f"{where}.kinds")
    spoken = frozenset(name for name in DOMAIN_WORDS if name in words)
    instructions, phrasings = [], []
    for kind in KINDS:
        here = f"{where}.kinds.{kind.template}"
        entry = _mapping(kinds.get(kind.template), here)
        _only(entry, ("instruction", "phrasings"), here)
        instructions.append(_unescaped(entry.get("instruction", ""), f"{here}.instruction"))
        phrasings.append(_phrasings(kind, entry.get("phrasings"), here, spoken))
    return Language(words, instructions, phrasings)


def _phrasings(kind: Kind, own: Any, where: str, spoken: frozenset[str]) -> list[str]:
    if not isinstance(own, list) or not own:
        raise InputError(f"{where}.phrasings must list at least one phrasing.")
    allowed = kind.allowed.union(spoken, *kind.needed)
    for number, phrasing in enumerate(own, start=1):
        label = f"{where}, phrasing {number}"
        found = _placeholders(phrasing, allowed, label)
        for alternatives in kind.needed:
            if not found & alternatives:
                names = " or ".join(f"{{{name}}}" for name in sorted(alternatives))
                raise InputError(f"{label} lacks the placeholder {names}: without it the question is another one.")
    return list(own)


def domain_words(words: dict[str, Any], domain: str) -> dict[str, str]:
    """The placeholders of DOMAIN_WORDS that a language has, in the words of a domain."""
    return {name: words[name][domain] for name in DOMAIN_WORDS if name in words}


def _plain(words: dict[str, Any]) -> dict[str, Any]:
    """Words with text keys throughout: JSON has no others."""
    return {name: {str(k): v for k, v in w.items()} if isinstance(w, dict) else w for name, w in words.items()}


def _words(words: dict[str, Any], where: str) -> dict[str, Any]:
    _only(words, tuple(_WORDS), where)
    checked: dict[str, Any] = {}
    for name, word in _WORDS.items():
        here = f"{where}.{name}"
        if not word.required and name not in words:
            continue
        if word.keys:
            table = _mapping(words.get(name), here)
            for key in word.keys:
                if not isinstance(table.get(key), str):
                    raise InputError(f"{here} has no text for '{key}'.")
            checked[name] = table
        elif word.needed or word.optional:
            found = _placeholders(words.get(name), word.needed | word.optional, here)
            for needed in sorted(word.needed - found):
                raise InputError(f"{here} lacks the placeholder {{{needed}}}.")
            checked[name] = words[name]
        else:
            checked[name] = _unescaped(words.get(name), here)
    return checked


def _unescaped(text: Any, where: str) -> str:
    """A text without placeholders as it will be shown, in which {{ stands for a brace as it does everywhere."""
    _placeholders(text, frozenset(), where)
    return text.format()


def _placeholders(text: Any, allowed: frozenset[str], where: str) -> frozenset[str]:
    """Names in braces; InputError for one that is not allowed or more than a name, or for braces that do not close."""
    if not isinstance(text, str):
        raise InputError(f"{where} must be a text in quotes, not {text!r}.")
    try:
        fields = [field for field in string.Formatter().parse(text) if field[1] is not None]
    except ValueError as error:
        raise InputError(f"{where} has unbalanced braces ({error}): write {{{{ or }}}} for a brace itself.") from error
    known = ", ".join(f"{{{one}}}" for one in sorted(allowed)) or "none"
    for _, name, specification, conversion in fields:
        if specification or conversion or not str(name).isidentifier():
            shown = f"{name}{f'!{conversion}' if conversion else ''}{f':{specification}' if specification else ''}"
            raise InputError(
                f"{where} has the placeholder {{{shown}}}, which is more than a name: write a name alone ({known})."
            )
        if name not in allowed:
            raise InputError(f"{where} has the unknown placeholder {{{name}}}: it may use {known}.")
    return frozenset(str(name) for _, name, _, _ in fields)


def _mapping(value: Any, where: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where} is missing or no mapping: a language needs words and all kinds of question.")
    return value


def _only(mapping: dict[Any, Any], known: tuple[str, ...], where: str) -> None:
    for name in mapping:
        if name not in known:
            raise InputError(f"{where} has the unknown entry '{name}': known are {', '.join(known)}.")
