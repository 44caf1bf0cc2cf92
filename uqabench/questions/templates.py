"""Phrasings of questions: one declarative YAML file, to which a user may add their own."""

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
from uqabench.questions.kinds import ASKED, KIND_INDEX, KINDS
from uqabench.settings.reader import load_yaml, merge

_NEEDED = {
    "df_last": [{"attribute"}, {"recency", "k"}],
    "df_nth": [{"attribute"}, {"ordinal", "n"}],
    "df_list": [{"attribute"}, {"k"}],
    "mf_count": [{"attribute"}, {"value"}],
    "mf_length": [],
    "ip_next": [],
    "ap_next": [{"attribute"}],
    "li_top3": [{"attribute"}],
    "si_recent": [{"attribute"}],
    "it_path": [{"attribute"}],
}
"""Placeholders without which a phrasing of a kind would ask something else: one of each set."""
_ALLOWED = {
    "df_last": {"attribute", "recency", "k"},
    "df_nth": {"attribute", "ordinal", "n"},
    "df_list": {"attribute", "k"},
    "mf_count": {"attribute", "value"},
    "mf_length": set(),
    "ip_next": {"attribute"},
    "ap_next": {"attribute"},
    "li_top3": {"attribute"},
    "si_recent": {"attribute", "window"},
    "it_path": {"attribute"},
}
_TEXTS = {
    "ordinal": {"n", "suffix"},
    "list_separator": set(),
    "path_separator": set(),
    "no_change": {"value"},
    "option": {"letter", "text"},
    "answer": set(),
    "item_separator": set(),
}
_TABLES: dict[str, tuple[Any, ...]] = {"attribute": ASKED, "recency": (1, 2, 3)}


@dataclass(frozen=True)
class Language:
    """Words of one language, and by kind (its place in KINDS) the instruction and the phrasings."""

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
    return yaml.safe_load(resources.files("uqabench").joinpath("assets/templates.yaml").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def _built_in() -> Templates:
    return _from_raw(_built_in_raw(), "templates.yaml")


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
    _only(kinds, tuple(KIND_INDEX), f"{where}.kinds")
    instructions, phrasings = [], []
    for kind in KINDS:
        here = f"{where}.kinds.{kind.name}"
        entry = _mapping(kinds.get(kind.name), here)
        _only(entry, ("instruction", "phrasings"), here)
        instruction = entry.get("instruction", "")
        _placeholders(instruction, set(), f"{here}.instruction")
        own = entry.get("phrasings")
        if not isinstance(own, list) or not own:
            raise InputError(f"{here}.phrasings must list at least one phrasing.")
        for number, phrasing in enumerate(own, start=1):
            label = f"{here}, phrasing {number}"
            found = _placeholders(phrasing, _ALLOWED[kind.name], label)
            for needed in _NEEDED[kind.name]:
                if not found & needed:
                    names = " or ".join(f"{{{name}}}" for name in sorted(needed))
                    raise InputError(f"{label} lacks the placeholder {names}: without it the question is another one.")
        instructions.append(instruction)
        phrasings.append(list(own))
    return Language(words, instructions, phrasings)


def _plain(words: dict[str, Any]) -> dict[str, Any]:
    """Words with text keys throughout: JSON has no others."""
    return {name: {str(k): v for k, v in w.items()} if isinstance(w, dict) else w for name, w in words.items()}


def _words(words: dict[str, Any], where: str) -> dict[str, Any]:
    _only(words, (*_TEXTS, *_TABLES), where)
    for name, allowed in _TEXTS.items():
        found = _placeholders(words.get(name), allowed, f"{where}.{name}")
        for needed in allowed - {"suffix"} - found:
            raise InputError(f"{where}.{name} lacks the placeholder {{{needed}}}.")
    for name, keys in _TABLES.items():
        table = _mapping(words.get(name), f"{where}.{name}")
        for key in keys:
            if not isinstance(table.get(key), str):
                raise InputError(f"{where}.{name} has no text for '{key}'.")
    return words


def _placeholders(text: Any, allowed: set[str], where: str) -> set[str]:
    """Names in braces; InputError for one that is not allowed, or for braces that do not close."""
    if not isinstance(text, str):
        raise InputError(f"{where} must be a text in quotes, not {text!r}.")
    try:
        found = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise InputError(f"{where} has unbalanced braces ({error}): write {{{{ or }}}} for a brace itself.") from error
    for name in sorted(found - allowed):
        known = ", ".join(f"{{{one}}}" for one in sorted(allowed)) or "none"
        raise InputError(f"{where} has the unknown placeholder {{{name}}}: it may use {known}.")
    return found


def _mapping(value: Any, where: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where} is missing or no mapping: a language needs words and all kinds of question.")
    return value


def _only(mapping: dict[Any, Any], known: tuple[str, ...], where: str) -> None:
    for name in mapping:
        if name not in known:
            raise InputError(f"{where} has the unknown entry '{name}': known are {', '.join(known)}.")
