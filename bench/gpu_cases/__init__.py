"""The production configurations of every GPU kernel, one module an operator: what is compiled ahead of time
(bench/aot.py) and whose cost is predicted (bench/model.py).

Each module has `kernel_cases() -> Iterable[KernelCase]`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Work:
    """What one launch does at the case's size, from the configuration alone.

    Attributes:
        tensor_flops: multiply-adds times two in matrix instructions, masked work of partial tiles included.
        useful_flops: those that the operator's definition needs.
        vector_flops: fp32 operations outside of matrix instructions.
        special_ops: exponentials, reciprocals, logarithms, roots.
        bytes: device memory read and written, each tensor's reloads included where they miss the L2 cache.
        blocks: thread blocks that the launch could keep busy at once (tiles).
    """

    tensor_flops: float = 0.0
    useful_flops: float = 0.0
    vector_flops: float = 0.0
    special_ops: float = 0.0
    bytes: float = 0.0
    blocks: int = 1


@dataclass(frozen=True)
class KernelCase:
    """One Triton kernel at one production size with the configurations that the autotuner may choose.

    Attributes:
        kernel: e.g. "hstu_attention_forward".
        size: e.g. "d=128 bf16".
        function: the `triton.jit` function itself, not the autotuner around it.
        signature: for every argument that is no constexpr its type: "*bf16", "*fp32", "*i64", "i64", "i32", "fp32".
        constants: the constexpr arguments that no configuration sets.
        configs: the committed `triton.Config`s.
        work: what a launch does under a configuration.
        expects: for "sm_80" and "sm_90", texts that the compiled PTX must hold, e.g. {"sm_90": ("wgmma",)}.
        aligned: arguments known to be divisible by 16 (pointers are; name strides and sizes that always are).
        hot: False where spills are tolerated (fp32 variants that nobody trains with).
        archs: the architectures whose kernels have these configurations, where the list depends on it.
    """

    kernel: str
    size: str
    function: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    configs: Sequence[Any]
    work: Callable[[Any], Work]
    expects: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aligned: tuple[str, ...] = ()
    hot: bool = True
    archs: tuple[int, ...] = (80, 90)


def all_cases() -> Iterator[KernelCase]:
    """The cases of every module in this folder."""
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        yield from importlib.import_module(f"{__name__}.{module}").kernel_cases()
