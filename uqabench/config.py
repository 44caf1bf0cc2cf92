"""Typed configs: dataclasses from YAML files, dictionaries and `a.b=c` overrides, with errors that name the field."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from uqabench.errors import InputError

T = TypeVar("T")


def load_yaml(path: Path | str) -> dict[str, Any]:
    """A YAML file's mapping; InputError names the file and line when it is broken."""
    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"The config file {path} does not exist.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        detail = " ".join(str(error).split())
        raise InputError(f"The config file {path} is not readable YAML: {detail}") from error
    if not isinstance(value, dict):
        raise InputError(f"The config file {path} holds no mapping of settings: write `name: value` lines.")
    return value


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
    if not equals or not path:
        example = "section.field=value, for example --set pretrain.optim.epochs=3" if flag == "--set" else "name=value"
        raise InputError(f"{flag} {text}: write it as {example}.")
    try:
        parsed: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"{flag} {text}: '{value}' is not a YAML value.") from error
    for key in reversed(path.split(".")):
        parsed = {key: parsed}
    return parsed


def from_dict(cls: type[T], values: dict[str, Any], where: str = "") -> T:
    """Build dataclass `cls` from a mapping; unknown names and wrong types are InputErrors that name the field."""
    if not isinstance(values, dict):
        raise InputError(f"{where or 'The config'} must be a mapping of settings, not {values!r}.")
    hints = typing.get_type_hints(cls)
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    built = {}
    for name, value in values.items():
        label = f"{where}.{name}" if where else str(name)
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise InputError(f"Unknown setting '{label}'{hint}: the settings here are {', '.join(sorted(known))}.")
        built[name] = _convert(value, hints[name], label)
    return cls(**built)


def _convert(value: Any, hint: Any, label: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        if value is None and len(options) < len(typing.get_args(hint)):
            return None
        return _convert(value, options[0], label)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, label)  # type: ignore[arg-type]
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{label} must be a list, not {value!r}.")
        entry = typing.get_args(hint)[0]
        return origin(_convert(item, entry, f"{label}[{i}]") for i, item in enumerate(value))
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise InputError(f"{label} must be a mapping, not {value!r}.")
        entry = typing.get_args(hint)[1]
        return {name: _convert(item, entry, f"{label}.{name}") for name, item in value.items()}
    if hint is Any or not isinstance(hint, type):
        return value
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        try:
            return float(value)
        except ValueError:
            pass
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise InputError(f"{label} must be of type {hint.__name__}, not {value!r}.")
    return value


def require_least(config: Any, least: dict[str, float], where: str = "") -> None:
    """InputError naming the first field of `config` that lies below its least value."""
    for name, bound in least.items():
        value = getattr(config, name)
        if not value >= bound:
            label = f"{where}.{name}" if where else name
            raise InputError(f"{label} is {value}: it must be at least {bound}.")


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON/YAML values."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
