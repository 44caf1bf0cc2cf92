"""What is wrong with settings, in one sentence."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from uqabench.errors import nearest

LONGEST = 290
"""A message has fewer than 300 characters."""
UNION_TAGS = {False: "(name)", True: "(mapping)"}
"""How pydantic's error locations mark which option of a union was tried; not part of a setting's name."""


class _Short(reprlib.Repr):
    """repr of any value, cut to some 60 characters: integers of any size, values nested in each other included."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 2, 50, 50
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = 3

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() <= 100:
            return repr(x)
        # Python refuses to print integers of thousands of digits, so the number of digits is estimated.
        return f"an integer of about {x.bit_length() * 30103 // 100000 + 1:,} digits"


_short = _Short()


def shown(value: Any) -> str:
    """A value as a message quotes it: its repr, shortened."""
    text = _short.repr(list(value) if isinstance(value, tuple) else value)  # YAML has lists only
    return text if len(text) <= 80 else text[:77] + "..."


def name_shown(name: Any, longest: int = 60) -> str:
    """A name that the user gave, as a message quotes it: printable and short."""
    text = str(name) if isinstance(name, str) else shown(name)
    if not text.isprintable():
        text = repr(text)[1:-1]
    return text if len(text) <= longest else text[: longest - 3] + "..."


def number_text(value: float) -> str:
    """A bound as people write it."""
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def unknown_setting(label: str, name: str, known: Sequence[str]) -> str:
    """The sentence for a name that a section does not have; `label` is its full dotted name."""
    start = f"Unknown setting '{label}'{nearest(name, known)}"
    text = f"{start}: the settings here are {', '.join(sorted(known))}."
    return text if len(text) <= LONGEST else f"{start}: `uqabench settings` lists all."


def one_sentence(error: ValidationError, cls: type, where: str) -> str:
    """Everything that `error` found in section `cls`, whose own name is `where` (empty: the whole run).

    One sentence for one fault; for several, as many as fit into 300 characters and how many more there are.
    """
    found = list(dict.fromkeys(_sentence(detail, cls, where) for detail in error.errors(include_url=False)))
    if len(found) == 1:
        return found[0] if len(found[0]) <= LONGEST else found[0][: LONGEST - 3] + "..."
    text, named = f"{len(found)} settings are wrong: ", 0
    for sentence in found:
        part = ("; " if named else "") + sentence.rstrip(".")
        if named and len(text) + len(part) > LONGEST - 20:
            break
        text, named = text + part, named + 1
    more = f"; and {len(found) - named} more." if named < len(found) else "."
    return text[: LONGEST - len(more)] + more


def _sentence(detail: Any, cls: type, where: str) -> str:
    path = [part for part in detail["loc"] if part not in UNION_TAGS.values()]
    owner, about, names = _field(cls, path)
    kind, value = detail["type"], detail["input"]
    label = _label(where, names)
    if kind in ("unexpected_keyword_argument", "unexpected_positional_argument"):
        known = [field.name for field in dataclasses.fields(owner)]
        return unknown_setting(label, str(names[-1]), known)
    if kind in ("missing", "missing_argument"):
        return f"{label} is missing: give it a value."
    if kind in _TYPES:
        return f"{label or 'The config'} must be {_TYPES[kind]}, not {shown(value)}."
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return f"{label} is {shown(value)}: it must be {about.allowed()}."
    if kind == "finite_number":
        return f"{label} is {shown(value)}: it must be a finite number, {about.allowed()}."
    if kind in ("choices", "pattern"):
        return f"{label} is {shown(value)}: choose {about.allowed()}."
    if kind in ("too_short", "too_long") and about is not None and about.size is not None:
        return f"{label} is {shown(value)}: give a list of {about.size_text()}."
    if kind == "value_error":  # raised by a section's `__post_init__`; the text begins with the field's name
        return f"{label}{'.' if label else ''}{detail['ctx']['error']}"
    return f"{label} {detail['msg'].rstrip('.')}."


_TYPES = {
    "int_type": "of type int",
    "float_type": "of type float",
    "bool_type": "of type bool",
    "string_type": "of type str",
    "string_unicode": "a text of valid characters",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping of settings",
}


def _field(cls: type, path: Sequence[Any]) -> tuple[type, Any, list[Any]]:
    """The innermost section on `path`, what the field found there declares (None: a section), and the path's names."""
    owner, about = cls, None
    names = [part for part in path if part != "[key]"]
    for part in names:
        known = {field.name: field for field in dataclasses.fields(owner)}
        if about is not None or part not in known:
            continue
        sections = [option for option in _options(owner.__hints__[part]) if hasattr(option, "__section__")]
        if sections:
            owner = sections[0]
        else:
            about = known[part].metadata["setting"]
    return owner, about, names


def _options(hint: Any) -> list[Any]:
    """A type and all types that it is made of."""
    found = [hint]
    for argument in getattr(hint, "__args__", ()):
        found += _options(argument)
    return found


def _label(where: str, path: Sequence[Any]) -> str:
    text = where
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + name_shown(part)
    return text
