"""What is measured, on a CPU (`bench.roofline`) and on a GPU (`bench.gpu`): rows, each with the least work that its
result takes and with other ways to the same result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.machine import Machine
from bench.work import Least

Call = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """Where and how large: `is_small` stands for tiny shapes, with which the code is rehearsed."""

    device: str
    is_small: bool


@dataclass(frozen=True)
class Floor:
    """The least that a row's result takes: operations, and bytes to and from memory.

    formula: the same in words, where a report prints it.
    seconds: given where the floor is itself a measurement; then `least` is not used.
    """

    least: Least = Least()
    formula: str = ""
    seconds: float | None = None

    def on(self, machine: Machine) -> float:
        """Seconds: flops / measured GEMM rate + bytes / measured copy bandwidth."""
        if self.seconds is not None:
            return self.seconds
        return self.least.flops / (machine.gemm_gflops * 1e9) + self.least.bytes / (machine.copy_gbps * 1e9)


@dataclass(frozen=True)
class Made:
    """A row's calls on its inputs.

    ours: one call for each set of inputs, which take turns. baselines: the same by other means, by name. check: largest
    error of ours against fp32 plain torch, relative to each result's largest value. backend: what ran. compared: the
    name of each result, ours, plain torch's in the same dtype, and in fp32.
    calls: calls within one timing, for what is too short to be timed alone.
    extra_bytes: measures the peak memory of one call beyond inputs, outputs and gradients.

    Where ours and a baseline give tensors of one shape (results, gradients), the calls of a CPU's row return them.
    """

    ours: Sequence[Call]
    baselines: Mapping[str, Callable[[], Sequence[Call]]] = field(default_factory=dict)
    check: Callable[[], float] | None = None
    backend: str = ""
    compared: Callable[[], Iterator[tuple[str, Any, Any, Any]]] | None = None
    calls: int = 1
    extra_bytes: Callable[[], int | None] | None = None


@dataclass(frozen=True)
class Row:
    """One row by name.

    group: rows of one group are measured together: by one process, or as details behind the row of the group's name.
    floor: of a call. unit: "tensor" (operations) or "memory" (bytes): what a percentage is of; "" for both, one after
    the other. tokens: of a call. what: the row in words. bound: of the relative error in `Made.check`.
    """

    name: str
    group: str
    floor: Callable[[Setting], Floor]
    make: Callable[[Setting], Made]
    unit: str = ""
    tokens: Callable[[Setting], int] | None = None
    what: str = ""
    bound: float = 0.05

    def work(self, setting: Setting) -> float:
        """The least work of a call in the row's unit."""
        least = self.floor(setting).least
        return least.flops if self.unit == "tensor" else least.bytes

    def describe(self, setting: Setting) -> dict[str, Any]:
        """The fields that need no measurement."""
        return {
            "name": self.name,
            "group": self.group,
            "unit": self.unit,
            "work": self.work(setting),
            "tokens": self.tokens(setting) if self.tokens else None,
        }
