"""Method names: `trm++`, `text20`, `oracle`, and variants such as `trm++@q-former+full`."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any

from uqabench.config import from_dict, merge, to_dict
from uqabench.encoders import encoder_names
from uqabench.errors import InputError
from uqabench.experiments.config import RunConfig
from uqabench.vocabulary import BASELINES

# What a variant changes in the settings of its method.
VARIANTS: dict[str, dict[str, Any]] = {
    "q-former": {"align": {"integration": "q-former"}},
    "mean-pooling": {"align": {"integration": "mean-pooling"}},
    "adapter": {"align": {"strategy": "adapter"}},
    "full": {"align": {"strategy": "full"}},
    "zero-shot": {"align": {"train": False}},
    "sl": {"pretrain": {"objective": "sl"}},
    "cl": {"pretrain": {"objective": "cl"}},
    "without-text": {"pretrain": {"encoder": {"inputs": "without-text"}}},
    "without-side": {"pretrain": {"encoder": {"inputs": "without-side"}}},
}


@dataclass(frozen=True)
class Method:
    """A method and its settings. kind: "encoder", "text", "no-history", "shuffled" or "baseline"."""

    name: str
    base: str
    kind: str
    config: RunConfig
    n_text: int = 0


def parse_method(name: str, config: RunConfig) -> Method:
    """A method by name; variants after `@`, joined by `+`, change the run's settings for it."""
    base, at, suffix = name.partition("@")
    changes: dict[str, Any] = {}
    for variant in suffix.split("+") if at else []:
        if variant not in VARIANTS:
            raise InputError(f"Method '{name}': there is no variant '{variant}': choose among {', '.join(VARIANTS)}.")
        changes = merge(changes, VARIANTS[variant])
    kind, n_text = _kind(base)
    if kind == "encoder":
        changes = merge(changes, {"pretrain": {"encoder": {"encoder": base}}})
    settings = from_dict(RunConfig, merge(to_dict(config), changes))
    return Method(name, base, kind, settings, n_text)


def _kind(base: str) -> tuple[str, int]:
    text = re.fullmatch(r"text([1-9]\d*)", base)
    if text:
        return "text", int(text.group(1))
    if base in ("no-history", "shuffled"):
        return base, 0
    if base in BASELINES:
        return "baseline", 0
    if base in encoder_names() or ":" in base:
        return "encoder", 0
    known = [*encoder_names(), "text20", "text50", *BASELINES]
    near = difflib.get_close_matches(base, known, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    raise InputError(
        f"There is no method '{base}'{hint}: choose among {', '.join(known)}, or name package.module:Class."
    )


def folder_name(name: str) -> str:
    """A method's name as a folder name."""
    return name.replace(":", "-").replace("/", "-")
