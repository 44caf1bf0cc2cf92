"""How a settings class is declared: `@section` on a class whose fields are `setting(default, help, bounds…)`.

A section is a frozen pydantic dataclass. Whether it is constructed directly, by `dataclasses.replace` or from a YAML
mapping (`reader.from_dict`), every field is checked for its type and its range; what is wrong is an InputError whose
sentence names the section and the field, what was given, and what is allowed.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Discriminator, Field, Strict, Tag
from pydantic_core import PydanticCustomError

from uqabench.errors import InputError
from uqabench.settings.sentences import UNION_TAGS, number_text, one_sentence, shown

T = TypeVar("T")

MAX_SEED = 2**32 - 1
"""Largest seed. A stage's seed and the run's are added, and the sum must fit every generator's 64 bits."""
MAX_COUNT = 10**9
"""Largest value of counts and budgets that have no narrower range."""
MAX_LENGTH = 2**20
"""Longest sequence of items that any setting can ask for."""
MAX_DEPTH = 20
"""Levels of mappings and lists that a free-form setting may have."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a field declares beside its type and default: see `setting`."""

    help: str
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    choices: tuple[str, ...] | None = None
    pattern: tuple[str, str] | None = None
    size: tuple[int, int] | None = None
    in_key: bool = True

    def allowed(self, short: bool = False) -> str:
        """The range, choices or form in words (`short`: for a table); empty where the type says everything."""
        if self.choices is not None:
            return "one of " + ", ".join(self.choices)
        if self.pattern is not None:
            return self.pattern[1]
        words = ((self.ge, "at least"), (self.gt, "above"), (self.le, "at most"), (self.lt, "below"))
        bounds = [f"{word} {number_text(bound)}" for bound, word in words if bound is not None]
        if not short:
            return " and ".join(bounds)
        closed = self.ge is not None and self.le is not None
        text = f"{number_text(self.ge)} to {number_text(self.le)}" if closed else ", ".join(bounds)
        return text if self.size is None else f"{self.size_text()} elements, {text}"

    def size_text(self) -> str:
        """How many elements a list may have."""
        least, most = self.size or (0, 0)
        return str(least) if least == most else f"{least} to {most}"

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds under pydantic's names."""
        found = {name: getattr(self, name) for name in ("gt", "ge", "lt", "le")}
        return {name: bound for name, bound in found.items() if bound is not None}


def setting(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    default_factory: Callable[[], Any] | Any = dataclasses.MISSING,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    choices: tuple[str, ...] | None = None,
    pattern: tuple[str, str] | None = None,
    size: tuple[int, int] | None = None,
    in_key: bool = True,
) -> Any:
    """A field of a section.

    help: one line for the listing and the documentation. gt, ge, lt, le: bounds of every number in the value, that is
    of the elements where it is a tuple or mapping of numbers; a number needs a lower and an upper one. choices: the
    texts allowed. pattern: regular expression that the whole text must match, and what it means in words. size:
    fewest and most elements. in_key: whether the field is part of a stage's key (`reader.key_dict`); False for what
    cannot change a result.
    """
    about = Setting(help, gt, ge, lt, le, choices, pattern, size, in_key)
    return dataclasses.field(default=default, default_factory=default_factory, metadata={"setting": about})


def section(name: str | None = None) -> Callable[[type[T]], type[T]]:
    """Class decorator that makes a settings class; `name` is what messages call it (default: the class's name)."""

    def declare(cls: type[T]) -> type[T]:
        hints = typing.get_type_hints(cls, include_extras=True)
        own = {field: hints[field] for field in cls.__dict__.get("__annotations__", {})}
        cls.__annotations__ = {field: _checked(hint, _about(cls.__dict__[field])) for field, hint in own.items()}
        built = pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid", validate_default=True))(
            cls
        )
        built.__section__ = cls.__name__ if name is None else name  # type: ignore[attr-defined]
        built.__hints__ = {**getattr(cls, "__hints__", {}), **own}  # type: ignore[attr-defined]
        construct = built.__init__

        @functools.wraps(construct)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            try:
                construct(self, *args, **kwargs)
            except pydantic.ValidationError as error:
                raise InputError(one_sentence(error, type(self), type(self).__section__)) from None

        built.__init__ = __init__  # type: ignore[method-assign]
        return built

    return declare


def is_section(hint: Any) -> bool:
    """Whether a type is a settings class."""
    return isinstance(hint, type) and hasattr(hint, "__section__")


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One setting of a tree of sections: its dotted name, its field, its type and what it declares."""

    name: str
    field: dataclasses.Field[Any]
    hint: Any
    about: Setting


def leaves(cls: type, prefix: str = "") -> Iterator[Leaf]:
    """Every setting below a section, depth first in the order of declaration."""
    for field in dataclasses.fields(cls):
        hint = cls.__hints__[field.name]  # type: ignore[attr-defined]
        if is_section(hint):
            yield from leaves(hint, f"{prefix}{field.name}.")
        else:
            yield Leaf(f"{prefix}{field.name}", field, hint, field.metadata["setting"])


def plain(value: Any, depth: int = MAX_DEPTH) -> Any:
    """A free-form value as it is when JSON can hold it; ValueError says what it cannot hold."""
    if depth == 0:
        raise PydanticCustomError("plain", "is nested more than {depth} levels deep", {"depth": MAX_DEPTH})
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        if abs(value) >= 2**63:
            raise PydanticCustomError("plain", "holds {value}, beyond 64 bits", {"value": shown(value)})
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise PydanticCustomError("plain", "holds {value}: numbers must be finite", {"value": shown(value)})
        return value
    if isinstance(value, (list, tuple)):
        return [plain(element, depth - 1) for element in value]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise PydanticCustomError("plain", "has the name {key}, which is no text", {"key": shown(key)})
        return {key: plain(element, depth - 1) for key, element in value.items()}
    kind = type(value).__name__
    raise PydanticCustomError("plain", "holds a value of type {kind}: write text, numbers or lists", {"kind": kind})


def _free(value: Any) -> Any:
    return plain(value)


def _about(field: Any) -> Setting:
    if not isinstance(field, dataclasses.Field) or "setting" not in field.metadata:
        raise TypeError("a field of a section is declared with setting(default, help)")
    return field.metadata["setting"]


def _checked(hint: Any, about: Setting) -> Any:
    """The type with the checks of its setting: numbers and texts are taken as they are, never converted, but for what
    YAML 1.1 reads as text (1e-4) and a whole number where a float is wanted."""
    if hint is bool:
        return Annotated[bool, Strict()]
    if hint is int:
        return Annotated[int, Strict(), Field(**about.bounds)]
    if hint is float:
        return Annotated[float, Strict(), Field(allow_inf_nan=False, **about.bounds), BeforeValidator(_as_float)]
    if hint is str:
        return Annotated[str, Strict(), AfterValidator(functools.partial(_text, about))]
    if hint is Any:
        return Annotated[Any, AfterValidator(_free)]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _checked_union(arguments, about)
    if origin is tuple:
        return Annotated[_sized(tuple[_checked(arguments[0], about), ...], about), BeforeValidator(_as_tuple)]
    if origin is list:
        return Annotated[_sized(list[_checked(arguments[0], about)], about), BeforeValidator(_as_list)]
    if origin is dict:
        return _sized(dict[_checked(str, Setting("")), _checked(arguments[1], about)], about)
    return hint


def _checked_union(options: tuple[Any, ...], about: Setting) -> Any:
    """`X | None`, or `str | Section`: a mapping is read as the section."""
    if types.NoneType in options:
        (option,) = [option for option in options if option is not types.NoneType]
        return _checked(option, about) | None
    tagged = [Annotated[_checked(option, about), Tag(UNION_TAGS[is_section(option)])] for option in options]
    return Annotated[typing.Union[tuple(tagged)], Discriminator(_union_tag)]  # noqa: UP007


def _union_tag(value: Any) -> str:
    return UNION_TAGS[isinstance(value, dict) or is_section(type(value))]


def _sized(hint: Any, about: Setting) -> Any:
    return hint if about.size is None else Annotated[hint, Field(min_length=about.size[0], max_length=about.size[1])]


def _as_float(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, (str, int)):
        try:
            return float(value)
        except ValueError:
            return value
        except OverflowError:
            raise PydanticCustomError("finite_number", "must be finite") from None
    return value


def _as_list(value: Any) -> Any:
    """Only lists and tuples are lists: not texts, mappings, sets or generators."""
    if not isinstance(value, (list, tuple)):
        raise PydanticCustomError("list_type", "must be a list")
    return list(value)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(_as_list(value))


def _text(about: Setting, value: str) -> str:
    if "\0" in value:
        raise PydanticCustomError("text", "holds a NUL character: remove it")
    if about.choices is not None and value not in about.choices:
        raise PydanticCustomError("choices", "choices")
    if about.pattern is not None and re.fullmatch(about.pattern[0], value) is None:
        raise PydanticCustomError("pattern", "pattern")
    return value
