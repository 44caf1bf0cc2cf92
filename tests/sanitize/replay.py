"""Recorded kernel calls, made again with nothing but NumPy.

Results must not depend on the number of threads, nor, but for rounding, on the instruction set; what else can go
wrong, a sanitizer sees.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

THREADS = (1, 4)


@dataclass(frozen=True)
class Saved:
    """An array's memory from its first element to its last, and how it lies there."""

    memory: np.ndarray
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def restore(self) -> np.ndarray:
        """A copy in memory of its own, so that a sanitizer sees an access beyond either end."""
        return as_strided(self.memory.copy(), self.shape, self.strides)


@dataclass(frozen=True)
class Call:
    function: str
    arguments: list[Any]
    settings: dict[str, Any]

    def restore(self) -> tuple[list[Any], dict[str, Any]]:
        return [restored(x) for x in self.arguments], {key: restored(x) for key, x in self.settings.items()}


def is_kernel(name: str, function: object) -> bool:
    """A CPU kernel: the GPU's take addresses, and are tested in tests/cuda."""
    return callable(function) and not name.startswith("_") and "instruction_set" not in name and "cuda" not in name


def saved(x: Any) -> Any:
    if not isinstance(x, np.ndarray):
        return x
    if x.size == 0:
        return Saved(np.empty(0, x.dtype), x.shape, x.strides)
    if any(stride < 0 or stride % x.itemsize for stride in x.strides):
        raise ValueError(f"cannot save an array with strides {x.strides}")
    last = sum((n - 1) * stride for n, stride in zip(x.shape, x.strides, strict=True))
    return Saved(as_strided(x, (last // x.itemsize + 1,), (x.itemsize,)).copy(), x.shape, x.strides)


def size(call: Call) -> int:
    """Bytes of its arrays."""
    return sum(x.memory.nbytes for x in [*call.arguments, *call.settings.values()] if isinstance(x, Saved))


def restored(x: Any) -> Any:
    return x.restore() if isinstance(x, Saved) else x


def run(module: ModuleType, call: Call, threads: int) -> list[np.ndarray]:
    """The arrays of the call, after it."""
    arguments, settings = call.restore()
    if "threads" in settings:
        settings["threads"] = threads
    getattr(module, call.function)(*arguments, **settings)
    return [x for x in [*arguments, *settings.values()] if isinstance(x, np.ndarray)]


def differ(a: np.ndarray, b: np.ndarray) -> bool:
    """By more than rounding."""
    rounding = 1e-4
    if a.dtype == np.uint16:  # bf16
        a, b, rounding = _floats(a), _floats(b), 1e-2
    if a.dtype.kind != "f":
        return not np.array_equal(a, b)
    finite = np.abs(b[np.isfinite(b)])
    scale = max(1.0, float(finite.max())) if finite.size else 1.0
    return not np.allclose(a, b, rtol=rounding, atol=rounding * scale, equal_nan=True)


def _floats(bf16: np.ndarray) -> np.ndarray:
    return (bf16.astype(np.uint32) << 16).view(np.float32)


def check_call(module: ModuleType, call: Call) -> None:
    """Runs it on every instruction set and numbers of threads. AssertionError if results differ."""
    first = None
    for name in module.instruction_sets():
        module.set_instruction_set(name)
        alone, many = (run(module, call, threads) for threads in THREADS)
        if any(a.tobytes() != b.tobytes() for a, b in zip(alone, many, strict=True)):
            raise AssertionError(f"{call.function} on {name}: {THREADS[1]} threads give other bits than one.")
        first = alone if first is None else first
        if any(differ(a, b) for a, b in zip(alone, first, strict=True)):
            raise AssertionError(f"{call.function}: {name} and {module.instruction_sets()[0]} differ.")


def check_concurrent_calls(module: ModuleType, calls: list[Call]) -> None:
    """Two Python threads make all calls at once, each with threads of its own, on every instruction set."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for call in calls:
                run(module, call, 2)
        except BaseException as failure:
            failures.append(failure)

    for name in module.instruction_sets():
        module.set_instruction_set(name)
        workers = [threading.Thread(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    if failures:
        raise failures[0]
