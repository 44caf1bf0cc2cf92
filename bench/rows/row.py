"""What a row of the roofline report is: two callables that do the same, and the floor below which neither can go."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.machine import Machine
from bench.work import Least


@dataclass(frozen=True)
class Floor:
    """Least work that the result takes: floating-point operations and bytes to and from memory.

    formula: the same in words, as the report prints it.
    seconds: given where the floor is itself a measurement; then `flops` and `bytes` are not used.
    """

    formula: str
    flops: float = 0.0
    bytes: float = 0.0
    seconds: float | None = None

    @classmethod
    def of(cls, least: Least, formula: str) -> Floor:
        """The floor of an operator's least work."""
        return cls(formula, least.flops, least.bytes)

    def on(self, machine: Machine) -> float:
        """Seconds: flops / measured GEMM rate + bytes / measured copy bandwidth."""
        if self.seconds is not None:
            return self.seconds
        return self.flops / (machine.gemm_gflops * 1e9) + self.bytes / (machine.copy_gbps * 1e9)


@dataclass(frozen=True)
class Measure:
    """One line of the report. `ours` and `baseline` are called in turn and timed.

    Where both give tensors of one shape (results, gradients) they return them, so that tests can compare.

    calls: calls of each within one timing, for what is too short to be timed alone.
    extra_bytes: measures the peak memory of one call of `ours` beyond inputs, outputs and gradients; None: not asked.
    """

    name: str
    ours: Callable[[], object]
    floor: Floor
    baseline_name: str
    baseline: Callable[[], object]
    calls: int = 1
    extra_bytes: Callable[[], int | None] | None = None


@dataclass(frozen=True)
class Row:
    """A row by name. `build(is_small)` makes its inputs and measures: the row itself first, then its details.

    `is_small` stands for tiny shapes that tests can afford; figures mean something at full size only.
    """

    name: str
    what: str
    build: Callable[[bool], list[Measure]]


def peak_extra_bytes(call: Callable[[], object], kept_bytes: int) -> int | None:
    """Peak resident memory during `call` above that before it, less `kept_bytes` that it leaves (outputs, gradients).

    None where the system cannot reset the peak (it takes Linux and a writable /proc/self/clear_refs). Resident memory
    counts pages touched, so space that the allocator held back from earlier calls must be returned first.
    """
    gc.collect()
    _trim()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        before = _status_bytes("VmRSS")
        result = call()
        peak = _status_bytes("VmHWM")
    except (OSError, KeyError):
        return None
    del result
    return max(0, peak - before - kept_bytes)


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return int(values[field].split()[0]) * 1024


def _trim() -> None:
    """Return freed memory to the system, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    """Normal fp32 values of standard deviation `scale`, the same on every run."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).mul_(scale)
