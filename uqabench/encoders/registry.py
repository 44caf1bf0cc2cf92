"""Encoders by name: built-in ones, those that packages add, and any `package.module:Class`."""

from __future__ import annotations

from typing import Any

from torch import nn

from uqabench.errors import InputError
from uqabench.registry import Registry, reason
from uqabench.settings.encoders import ENCODER_PRESETS, PRESET_NAMES, WIDTHS, encoder_config

REGISTRY: Registry[type[nn.Module]] = Registry("encoder", "uqabench.encoders")

register = REGISTRY.register


def encoder_names() -> tuple[str, ...]:
    """Every name that `build_encoder` knows, sorted: built-in, registered, and declared as entry points."""
    return REGISTRY.names()


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
    if name in ENCODER_PRESETS:
        return REGISTRY.classes[name](encoder_config(name, preset, overrides))
    cls: Any = REGISTRY.find(name)
    overrides = {"width": WIDTHS[preset], **overrides}
    try:
        encoder = cls(**overrides)
    except InputError:
        raise
    except Exception as error:  # a user's class may raise anything
        given = ", ".join(f"{key}={value!r}" for key, value in overrides.items())
        raise InputError(f"The encoder {name} cannot be built as {cls.__name__}({given}): {reason(error)}.") from error
    if not isinstance(encoder, nn.Module):
        raise InputError(f"The encoder {name} is a {type(encoder).__name__}: it must be a torch.nn.Module.")
    if not hasattr(encoder, "width"):
        encoder.width = overrides["width"]
    if not hasattr(encoder, "causal"):
        encoder.causal = False
    return encoder
