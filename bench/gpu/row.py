"""What bench.gpu measures: one row an operator, size and direction, or a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Call = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """Where and how large: `is_small` stands for tiny shapes, with which a CPU rehearses the code."""

    device: str
    is_small: bool


@dataclass(frozen=True)
class Made:
    """A row's calls on its inputs.

    ours: one call for each set of inputs, which take turns. baselines: the same by other means, by name. check: largest
    error of ours against fp32 plain torch, relative to each result's largest value. backend: what ran. compared: the
    name of each result, ours, plain torch's in the same dtype, and in fp32.
    """

    ours: Sequence[Call]
    baselines: Mapping[str, Callable[[], Sequence[Call]]] = field(default_factory=dict)
    check: Callable[[], float] | None = None
    backend: str = ""
    compared: Callable[[], Iterator[tuple[str, Any, Any, Any]]] | None = None


@dataclass(frozen=True)
class Row:
    """One row by name. unit: "tensor" (work in FLOPs) or "memory" (bytes): what its percentage is of.

    group: rows of one group are measured by one process. work: least work of a call at full size. tokens: of a call.
    """

    name: str
    group: str
    unit: str
    work: Callable[[Setting], float]
    make: Callable[[Setting], Made]
    tokens: Callable[[Setting], int]
    bound: float = 0.05

    def describe(self, setting: Setting) -> dict[str, Any]:
        """The fields that need no measurement."""
        return {
            "name": self.name,
            "group": self.group,
            "unit": self.unit,
            "work": self.work(setting),
            "tokens": self.tokens(setting),
        }
