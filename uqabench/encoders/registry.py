"""Encoders by name: built-in ones, those that packages add, and any `package.module:Class`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import fields, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from torch import nn

from uqabench.encoders.config import PRESET_NAMES, PRESETS, WIDTHS
from uqabench.errors import InputError
from uqabench.objects import import_object

ENTRY_POINT_GROUP = "uqabench.encoders"

Encoder = TypeVar("Encoder", bound=type[nn.Module])

_classes: dict[str, type[nn.Module]] = {}


def register(name: str) -> Callable[[Encoder], Encoder]:
    """Class decorator that makes an encoder known as `name` in this process.

    Raises InputError when another class has the name. A package can be found without being imported first: it
    declares the entry point `name = "package.module:Class"` in the group "uqabench.encoders".
    """

    def add(cls: Encoder) -> Encoder:
        taken = _classes.setdefault(name, cls)
        if (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise InputError(
                f"The encoder name '{name}' belongs to {taken.__module__}:{taken.__qualname__}: "
                f"register {cls.__qualname__} under another name."
            )
        _classes[name] = cls
        return cls

    return add


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def encoder_names() -> tuple[str, ...]:
    """Every name that `build_encoder` knows, sorted: built-in, registered, and declared as entry points."""
    return tuple(sorted({*_classes, *_entry_points()}))


def build_encoder(name: str, preset: str = "demo", **overrides: Any) -> nn.Module:
    """Build an encoder with fresh weights from torch's global generator.

    `name` is one of `encoder_names()` or "package.module:Class". A built-in encoder takes its configuration from
    `preset`, with `overrides` replacing fields of it. Any other class is constructed as
    `Class(width=..., **overrides)`, where `width` is the preset's (32, 128, 256, 512, 512) unless overridden. It may be
    any `nn.Module` with `forward(x (T, width), offsets int64 (B+1,), timestamps=None) -> (T, width)`. It is taken to be
    causal (a state depends on its own and earlier items only) when it has an attribute `causal = True`.

    Raises InputError for an unknown name or preset, a class that cannot be imported or constructed, and overrides
    that it does not take.
    """
    if preset not in PRESET_NAMES:
        raise InputError(f"The preset '{preset}' is unknown: choose one of {', '.join(PRESET_NAMES)}.")
    if name in PRESETS:
        return _classes[name](_configure(name, preset, overrides))
    cls = _find(name)
    overrides = {"width": WIDTHS[preset], **overrides}
    try:
        encoder = cls(**overrides)
    except InputError:
        raise
    except Exception as error:  # a user's class may raise anything
        given = ", ".join(f"{key}={value!r}" for key, value in overrides.items())
        raise InputError(f"The encoder {name} cannot be built as {cls.__name__}({given}): {_reason(error)}.") from error
    if not isinstance(encoder, nn.Module):
        raise InputError(f"The encoder {name} is a {type(encoder).__name__}: it must be a torch.nn.Module.")
    if not hasattr(encoder, "width"):
        encoder.width = overrides["width"]
    if not hasattr(encoder, "causal"):
        encoder.causal = False
    return encoder


def _configure(name: str, preset: str, overrides: dict[str, Any]) -> Any:
    config = PRESETS[name][preset]
    known = [item.name for item in fields(config)]
    for key in overrides:
        if key not in known:
            raise InputError(f"The encoder {name} has no setting '{key}'{_nearest(key, known)}: {', '.join(known)}.")
    return replace(config, **overrides)


def _find(name: str) -> Any:
    if ":" in name:
        return import_object(name, "encoder")
    if name in _classes:
        return _classes[name]
    points = _entry_points()
    if name not in points:
        raise InputError(
            f"The encoder '{name}' is unknown{_nearest(name, encoder_names())}: choose one of "
            f"{', '.join(encoder_names())}, or give your own class as package.module:Class."
        )
    return import_object(points[name].value, "encoder")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(". ")


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
