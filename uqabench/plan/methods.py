"""Methods: a base and a patch of the settings. `trm++`, `text20`, `oracle`, `trm++@q-former+full`, or a mapping."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from uqabench.encoders import encoder_names
from uqabench.errors import InputError, nearest
from uqabench.settings.reader import load_yaml, merge, nested
from uqabench.settings.run import MethodConfig, RunConfig, patched
from uqabench.vocabulary import ASIDE, BASELINES, GIVEN_BASELINES, GIVEN_QUESTIONS, MODEL_FREE_BASELINES, group

PATCHABLE = ("pretrain", "align", "prompt", "evaluate", "llm")
"""Sections that a method may change: methods of one run share data and questions, or could not be compared."""


@dataclass(frozen=True)
class Method:
    """A method and its settings.

    base: name without variants. kind: "encoder", "history-vector" (the closed form's target in place of an encoder),
    "text" (the last `n_text` items as text), "no-history", "shuffled" or "baseline" (answers without a language model);
    an encoder may have `n_text` items beside its soft prompt. config: the run's settings with the method's patch laid
    over them. title: what messages call it, where the name alone tells too little.
    """

    name: str
    base: str
    kind: str
    config: RunConfig
    n_text: int = 0
    title: str = ""

    @property
    def has_vectors(self) -> bool:
        """Whether it shows the history as soft tokens."""
        return self.kind in ("encoder", "history-vector")

    @property
    def is_prompted(self) -> bool:
        """Whether a language model is aligned to it."""
        return self.has_vectors or self.kind in ("text", "no-history")

    def __str__(self) -> str:
        return self.title or self.name


def rated(methods: Iterable[Method]) -> list[Method]:
    """The methods whose best is sought: encoders, or where all of them are controls, these."""
    encoders = [method for method in methods if method.kind == "encoder" and not method.config.evaluate.shuffle]
    return [method for method in encoders if group(method.name) not in ASIDE] or encoders


def parse_method(
    entry: str | MethodConfig, config: RunConfig, extra: Mapping[str, Any] = MappingProxyType({})
) -> Method:
    """The method that an entry of `config.methods` stands for; InputError names what is unknown in it.

    extra: a patch laid over the method's own, of any settings.
    """
    name, of, own = (entry, entry, {}) if isinstance(entry, str) else (entry.name, entry.base, entry.set)
    base, at, suffix = of.partition("@")
    kind, n_text = _kind(base)
    patch: dict[str, Any] = {}
    known = {**packaged_variants(), **config.variants}
    for variant in suffix.split("+") if at else []:
        if variant not in known:
            raise InputError(f"Method '{of}': there is no variant '{variant}': choose among {', '.join(known)}.")
        patch = merge(patch, nested(known[variant]))
    patch = merge(patch, nested(own))
    for section in patch:
        if section not in PATCHABLE:
            raise InputError(
                f"Method '{name}' sets '{section}': a method can change {', '.join(PATCHABLE)}; what all methods "
                "share is set for the run."
            )
    patch = merge(patch, nested(extra))
    if kind == "encoder":
        patch = merge(patch, {"pretrain": {"encoder": {"encoder": base}}})
    settled = patched(config, patch)
    return Method(name, base, kind, settled, settled.prompt.text_items if kind == "encoder" else n_text)


def parse_methods(config: RunConfig) -> list[Method]:
    """All methods of a run, each once."""
    own = [entry for entry in config.methods if not isinstance(entry, str)]
    named = dict.fromkeys(entry for entry in config.methods if isinstance(entry, str))
    return [parse_method(entry, config) for entry in [*named, *own]]


def fitting(entries: Iterable[str | MethodConfig], config: RunConfig) -> list[str | MethodConfig]:
    """The entries of a list that ships with uqabench which can answer the run's questions: of those that came with the
    data, whose options have no values, most baselines without a language model cannot."""
    entries = list(entries)
    if config.questions.evaluation.version != GIVEN_QUESTIONS:
        return entries
    cannot = set(MODEL_FREE_BASELINES) - set(GIVEN_BASELINES)
    return [entry for entry in entries if entry not in cannot]


@lru_cache(maxsize=1)
def packaged_variants() -> dict[str, dict[str, Any]]:
    """The named patches that ship with uqabench: name → dotted setting → value."""
    with resources.as_file(resources.files("uqabench") / "configs" / "variants.yaml") as path:
        return load_yaml(path)


def _kind(base: str) -> tuple[str, int]:
    text = re.fullmatch(r"text([1-9]\d{0,5})", base)
    if text:
        return "text", int(text.group(1))
    if base in MODEL_FREE_BASELINES:
        return "baseline", 0
    if base in BASELINES or base == "history-vector":
        return base, 0
    if base in encoder_names() or ":" in base:
        return "encoder", 0
    known = [*encoder_names(), "history-vector", "text20", "text50", *BASELINES]
    raise InputError(
        f"There is no method '{base}'{nearest(base, known)}: choose among {', '.join(known)}, or name "
        "package.module:Class."
    )
