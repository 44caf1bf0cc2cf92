"""Reading settings: YAML files, `a.b=c` overrides, and mappings into sections; writing them as plain values again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from uqabench.errors import InputError
from uqabench.settings.schema import MAX_DEPTH
from uqabench.settings.sentences import name_shown, one_sentence, shown

T = TypeVar("T")

MAX_NODES = 100_000
"""Most values that a YAML file may stand for, aliases counted as often as they are used."""
_REFUSED_TAGS = ("binary", "set", "omap", "pairs", "timestamp")


class _Loader(yaml.SafeLoader):
    """YAML as settings need it: text, numbers, truth values, lists and mappings with distinct keys.

    Dates stay text. What PyYAML would answer with another exception than its own, or with more work than the file is
    long (deep nesting, aliases of aliases), is an error with a place.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.depth = 0
        self.sizes: dict[yaml.Node, int] = {}  # finished nodes: how many values each stands for

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        alias = self.check_event(yaml.AliasEvent)
        mark = self.peek_event().start_mark
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested more than {MAX_DEPTH} levels deep", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if alias and node not in self.sizes:
            raise yaml.composer.ComposerError(None, None, "an alias that refers to what it is part of", mark)
        self.sizes[node] = 1 + sum(self.sizes[child] for child in _children(node))
        if self.sizes[node] > MAX_NODES:
            raise yaml.composer.ComposerError(None, None, f"more than {MAX_NODES:,} values", mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    problem = f"the name '{name_shown(key.value)}' is given twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """An int or float; text that only looks like one (0x, 5,000 digits) is an error with a place."""
        is_int = node.tag.endswith(":int")
        try:
            return self.construct_yaml_int(node) if is_int else self.construct_yaml_float(node)
        except (ValueError, OverflowError, IndexError):
            problem = f"'{name_shown(node.value)}' is no number that can be read: put quotes around a text"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def refuse(self, node: yaml.Node) -> Any:
        """A tag for what settings cannot hold."""
        problem = f"!!{node.tag.rpartition(':')[2]} is no kind of value that a setting can have: write text or numbers"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)
for _tag in _REFUSED_TAGS:
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.refuse)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _parse(text: str) -> Any:
    """The value of a YAML text; yaml.YAMLError for whatever is wrong with it."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _problem(error: yaml.YAMLError) -> str:
    """Place and reason of a YAML error on one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    text = " ".join(str(problem or error).split())
    return place + (text if len(text) <= 150 else text[:147] + "...")


def load_yaml(
    path: Path | str,
    what: str = "config file",
    contents: str = "mapping of settings: write `name: value` lines",
    *,
    text_keys: bool = True,
) -> dict[Any, Any]:
    """A YAML file's mapping; InputError names the file and line when it is broken.

    what: what messages call the file. contents: what it lacks when it holds no mapping, and the way out.
    text_keys: refuse names that are no text (1, true, null).
    """
    name = name_shown(str(path), longest=200)
    try:
        value = _parse(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"The {what} {name} does not exist.") from error
    except yaml.YAMLError as error:
        raise InputError(f"The {what} {name} is not readable YAML: {_problem(error)}.") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL character, or bytes that are no UTF-8
        reason = " ".join(str(error).split())[:150]
        raise InputError(f"The {what} {name} is not readable YAML: {reason}.") from error
    if not isinstance(value, dict):
        raise InputError(f"The {what} {name} holds no {contents}.")
    if text_keys:
        _require_text_keys(value, f"The {what} {name}")
    return value


def _require_text_keys(value: Any, where: str) -> None:
    if isinstance(value, list):
        for element in value:
            _require_text_keys(element, where)
    if isinstance(value, dict):
        for key, element in value.items():
            if not isinstance(key, str):
                raise InputError(f"{where}: the name {shown(key)} is no text: put it in quotes.")
            _require_text_keys(element, where)


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`base` with `change` laid over it, mapping by mapping."""
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def parse_override(text: str, flag: str = "--set") -> dict[str, Any]:
    """`a.b=c` as a nested mapping; the value is read as YAML."""
    path, equals, value = text.partition("=")
    label = name_shown(text)
    if not equals or not path:
        example = "section.field=value, for example --set pretrain.optim.epochs=3" if flag == "--set" else "name=value"
        raise InputError(f"{flag} {label}: write it as {example}.")
    try:
        parsed: Any = _parse(value)
    except yaml.YAMLError as error:
        raise InputError(f"{flag} {label}: '{name_shown(value)}' is not a YAML value: {_problem(error)}.") from error
    _require_text_keys(parsed, f"{flag} {label}")
    return _nested(path, parsed, f"{flag} {label}")


def _nested(path: str, value: Any, where: str) -> dict[str, Any]:
    names = path.split(".")
    if len(names) > MAX_DEPTH:
        raise InputError(f"{where}: no setting lies {len(names)} levels deep.")
    for name in reversed(names):
        value = {name: value}
    return value


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping whose names may be dotted ({"pretrain.length": 64}) as nested mappings."""
    built: dict[str, Any] = {}
    for path, value in values.items():
        built = merge(built, _nested(path, value, name_shown(path)))
    return built


def from_dict(cls: type[T], values: Any, where: str = "") -> T:
    """Build section `cls` from a mapping; unknown names, wrong types and values out of range are InputErrors that name
    the field. `where` stands in front of the fields' names in messages."""
    if not isinstance(values, Mapping):
        raise InputError(f"{where or 'The config'} must be a mapping of settings, not {shown(values)}.")
    try:
        return cls.__pydantic_validator__.validate_python(dict(values))  # type: ignore[attr-defined]
    except pydantic.ValidationError as error:
        raise InputError(one_sentence(error, cls, where)) from None


def to_dict(config: Any) -> dict[str, Any]:
    """A section as plain JSON/YAML values; `from_dict` inverts it."""
    return _plain(config, whole=True)


def key_dict(config: Any) -> dict[str, Any]:
    """A section's part of a stage's key: `to_dict` without the settings that cannot change a result."""
    return _plain(config, whole=False)


def _plain(value: Any, whole: bool) -> Any:
    if dataclasses.is_dataclass(value):
        kept = [f for f in dataclasses.fields(value) if whole or f.metadata["setting"].in_key]
        return {field.name: _plain(getattr(value, field.name), whole) for field in kept}
    if isinstance(value, Mapping):
        return {str(key): _plain(element, whole) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(element, whole) for element in value]
    return value
