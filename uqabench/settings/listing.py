"""Settings as people read them: every one of a run with where its value comes from, and the page docs/settings.md."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from uqabench.errors import InputError, nearest
from uqabench.settings.encoders import ENCODER_PRESETS
from uqabench.settings.reader import to_dict
from uqabench.settings.run import FOLLOWERS, PRESETS, MethodConfig, RunConfig, made_from, merge_layers, run_config
from uqabench.settings.schema import Leaf, is_section, leaves
from uqabench.settings.sentences import name_shown

Layers = list[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Row:
    """One setting of a run: its value and default as JSON values, and where the value comes from."""

    leaf: Leaf
    value: Any
    default: Any
    origin: str

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; bounds under gt, ge, lt, le."""
        about = self.leaf.about
        found = {"name": self.leaf.name, "value": self.value, "default": self.default, "from": self.origin}
        found |= {"type": type_words(self.leaf.hint), "help": about.help, **about.bounds}
        return found | ({"choices": list(about.choices)} if about.choices else {})


def rows(layers: Layers, section: str | None = None) -> list[Row]:
    """Every setting of the run that `run.run_layers` describes, or those of one section.

    Raises InputError for settings that make no sense and for a section that does not exist.
    """
    found = list(leaves(RunConfig))
    if section is not None:
        known = {prefix for leaf in found for prefix in _prefixes(leaf.name)}
        if section not in known:
            near = nearest(section, known)
            raise InputError(f"There is no section or setting '{name_shown(section)}'{near}: name one, e.g. pretrain.")
        found = [leaf for leaf in found if section in _prefixes(leaf.name)]
    values, defaults = to_dict(made_from(merge_layers(layers))), _defaults()
    return [
        Row(leaf, value := _at(values, leaf.name), _at(defaults, leaf.name), _origin(layers, leaf.name, value))
        for leaf in found
    ]


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _at(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values[part]
    return values


def _defaults() -> dict[str, Any]:
    """What a run without any settings has, before its encoder's `max_len` is raised."""
    values = to_dict(RunConfig())
    values["pretrain"]["encoder"]["overrides"] = {}
    return values


def _origin(layers: Layers, name: str, value: Any) -> str:
    """The last layer that gives the setting, or what it follows from."""
    given = _last_giving(layers, name)
    if name == "pretrain.encoder.overrides" and "max_len" in value:
        if not any("max_len" in overrides for overrides in _given(layers, name)):
            return " and ".join([*([given] if given else []), "the longest history"])
    for leader, followers in FOLLOWERS.items():
        if given is None and name in followers and _last_giving(layers, leader):
            return f"{leader} ({_last_giving(layers, leader)})"
    if given is None and name in ("pretrain.encoder.item_dim", "pretrain.encoder.side_dim"):
        return "pretrain.encoder.preset"
    return given or "default"


def _last_giving(layers: Layers, name: str) -> str | None:
    return next((origin for origin, mapping in reversed(layers) if list(_given([(origin, mapping)], name))), None)


def _given(layers: Layers, name: str) -> Iterator[Any]:
    """The values that layers give a setting."""
    for _, mapping in layers:
        level: Any = mapping
        for part in name.split("."):
            if not isinstance(level, Mapping) or part not in level:
                break
            level = level[part]
        else:
            yield level


def listing(found: Iterable[Row]) -> str:
    """Rows for the terminal: name, value, where it comes from, what is allowed and what it means."""
    cells = [("setting", "value", "from", "meaning")]
    for row in found:
        value = name_shown(json.dumps(row.value, ensure_ascii=False), 48)
        cells.append((row.leaf.name, value, row.origin, _meaning(row)))
    widths = [max(len(line[i]) for line in cells) for i in range(3)]
    lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(line, widths, strict=False)), line[3]]) for line in cells]
    return "\n".join(line.rstrip() for line in lines)


def _meaning(row: Row) -> str:
    allowed = row.leaf.about.allowed(short=True)
    notes = [allowed] if allowed else []
    if row.value != row.default:
        notes.append(f"default {name_shown(json.dumps(row.default, ensure_ascii=False))}")
    return row.leaf.about.help + (f" ({'; '.join(notes)})" if notes else "")


def type_words(hint: Any) -> str:
    """A type in words that YAML's users know."""
    names = {int: "integer", float: "number", bool: "true or false", str: "text", Any: "any value"}
    if hint in names:
        return names[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (tuple, list):
        return f"list of {type_words(arguments[0])}"
    if origin is dict:
        return "mapping" if arguments[1] is Any else f"mapping to {type_words(arguments[1])}"
    if arguments:
        return " or ".join("null" if option is type(None) else type_words(option) for option in arguments)
    return "mapping"


# The page


def page() -> str:
    """The text of docs/settings.md."""
    parts = [_HEAD]
    for names, cls in _sections().items():
        parts.append(_section_part(names, cls))
    parts += [_section_part(("methods[…]",), MethodConfig), _presets_part(), *map(_encoder_part, ENCODER_PRESETS)]
    return "\n\n".join(parts) + "\n"


_HEAD = """# Settings

<!-- Made by `python -m uqabench.settings > docs/settings.md` from the schema in `uqabench/settings`: do not edit. -->

A run's settings are a preset (`uqabench/configs/`), a YAML file laid over it (`--config FILE`; a line `base: PRESET` in
the file takes the preset's place), and single settings (`--set pretrain.optim.lr=1e-3`), each laid over what is before
it. They are checked as a whole before any work. `uqabench settings PRESET` prints every setting of a preset with where
it comes from; `--config`, `--set`, `--section pretrain` and `--json` work there too.

`history_length` is the benchmark's N. Unless they are given themselves, these follow it:
{followers}.
In the same way the versions of the question sets follow `questions.version`.

Where a built-in encoder's preset has a `max_len` below the longest sequence that the run shows it, `max_len` is raised.
""".rstrip().format(followers=",\n".join(f"`{name}`" for name in FOLLOWERS["history_length"]))


def _sections() -> dict[tuple[str, ...], type]:
    """Dotted names of sections -> their class; sections of one class stand together."""
    found: dict[type, list[str]] = {}

    def walk(cls: type, prefix: str) -> None:
        found.setdefault(cls, []).append(prefix.rstrip("."))
        for field in fields(cls):
            hint = cls.__hints__[field.name]  # type: ignore[attr-defined]
            if is_section(hint):
                walk(hint, f"{prefix}{field.name}.")

    walk(RunConfig, "")
    return {tuple(names): cls for cls, names in found.items()}


def _section_part(names: tuple[str, ...], cls: type) -> str:
    title = ", ".join(f"`{name}`" for name in names) if names != ("",) else "The run"
    own = [leaf for leaf in leaves(cls) if "." not in leaf.name]
    about = " ".join(str(cls.__doc__).split("\n\n")[0].split())
    if not own:
        return f"## {title}\n\n{about}"
    defaults = _defaults()
    lines = ["| setting | type | default | allowed | meaning |", "|---|---|---|---|---|"]
    for leaf in own:
        if names == ("methods[…]",):
            default = "{}" if leaf.name == "set" else ""
        else:
            default = _default_cell([(name, _at(defaults, f"{name}.{leaf.name}".lstrip("."))) for name in names])
        cells = (f"`{leaf.name}`", type_words(leaf.hint), default, leaf.about.allowed(short=True), leaf.about.help)
        lines.append("| " + " | ".join(cells) + " |")
    return f"## {title}\n\n{about}\n\n" + "\n".join(lines)


def _default_cell(found: list[tuple[str, Any]]) -> str:
    """A default; where sections of one class differ in it, that of each."""
    values = {json.dumps(value) for _, value in found}
    if len(values) == 1:
        return _cell(found[0][1])
    return ", ".join(f"{name}: {_cell(value)}" for name, value in found)


def _cell(value: Any) -> str:
    if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_cell(element)}" for key, element in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_cell(element) for element in value) + "]"
    return str(value) if isinstance(value, str) else json.dumps(value)


def _presets_part() -> str:
    defaults = _defaults()
    configs = {name: to_dict(run_config(name)) for name in PRESETS}
    lines = ["| setting | default | " + " | ".join(PRESETS) + " |", "|---" * (2 + len(PRESETS)) + "|"]
    for leaf in leaves(RunConfig):
        default, values = _at(defaults, leaf.name), [_at(config, leaf.name) for config in configs.values()]
        if any(value != default for value in values):
            cells = ["" if value == default else _cell(value) for value in values]
            lines.append("| " + " | ".join([f"`{leaf.name}`", _cell(default), *cells]) + " |")
    return "## Presets\n\nWhat they set differently from the defaults.\n\n" + "\n".join(lines)


def _encoder_part(name: str) -> str:
    presets = ENCODER_PRESETS[name]
    cls = type(presets["tiny"])
    lines = ["| setting | allowed | meaning | " + " | ".join(presets) + " |", "|---" * (3 + len(presets)) + "|"]
    for leaf in leaves(cls):
        values = [_cell(getattr(config, leaf.name)) for config in presets.values()]
        lines.append(
            "| " + " | ".join([f"`{leaf.name}`", leaf.about.allowed(short=True), leaf.about.help, *values]) + " |"
        )
    title = f"## `pretrain.encoder.overrides` of {name}"
    return f"{title}\n\n{' '.join(str(cls.__doc__).split())}\n\n" + "\n".join(lines)
