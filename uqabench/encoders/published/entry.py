"""One line of a map between our names and the published ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Entry:
    """A parameter of ours and the published ones that it is made of, laid one below the other.

    `{i}` in names is the layer. `shape`: "same"; "transposed", for x @ weight; or "depthwise", (channels, 1, taps)
    where ours is (channels, taps).
    """

    ours: str
    theirs: tuple[str, ...]
    shape: str = "same"

    def at(self, layer: int) -> Entry:
        """The entry of one layer."""
        names = (name.replace("{i}", str(layer)) for name in (self.ours, *self.theirs))
        return Entry(next(names), tuple(names), self.shape)

    def to_ours(self, parts: list[Tensor]) -> Tensor:
        """Published tensors -> ours."""
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        if self.shape == "transposed":
            whole = whole.T
        return (whole.squeeze(1) if self.shape == "depthwise" else whole).contiguous()

    def to_theirs(self, whole: Tensor) -> list[Tensor]:
        """Our tensor -> the published ones."""
        if self.shape == "transposed":
            whole = whole.T
        elif self.shape == "depthwise":
            whole = whole.unsqueeze(1)
        return [part.clone().contiguous() for part in whole.chunk(len(self.theirs))]


def same(ours: str, theirs: str) -> Entry:
    """An entry of one parameter that has one shape on both sides."""
    return Entry(ours, (theirs,))


def weight_and_bias(ours: str, theirs: str) -> tuple[Entry, Entry]:
    """The entries of a module with weight and bias."""
    return same(f"{ours}.weight", f"{theirs}.weight"), same(f"{ours}.bias", f"{theirs}.bias")


@dataclass(frozen=True)
class PublishedMap:
    """How the published weights of an encoder are called.

    layers, rest: entries with and without `{i}`. mark: a published name of a layer that no other encoder has. unused:
    published names that hold nothing at the published settings. sizes: published tensors by name -> the settings that
    their shapes tell, layers apart.
    """

    encoder: str
    mark: str
    layers: tuple[Entry, ...]
    rest: tuple[Entry, ...]
    sizes: Callable[[dict[str, Tensor]], dict[str, Any]]
    unused: tuple[str, ...] = ()

    def entries(self, n_layers: int) -> list[Entry]:
        """All entries of an encoder with so many layers."""
        return [entry.at(i) for i in range(n_layers) for entry in self.layers] + list(self.rest)

    def count_layers(self, names: set[str]) -> int:
        """How many layers these published names have."""
        n = 0
        while self.mark.replace("{i}", str(n)) in names:
            n += 1
        return n
