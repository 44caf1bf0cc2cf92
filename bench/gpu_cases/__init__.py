"""The production configurations of every GPU kernel, one module an operator: what is compiled ahead of time
(bench/aot.py) and whose cost is predicted (bench/model.py).

Each module has `kernel_cases() -> Iterable[KernelCase]`, or `cuda_cases() -> Iterable[CudaCase]` for CUDA C++.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
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


@dataclass(frozen=True)
class CudaCase:
    """One CUDA C++ kernel at one production size. nvcc compiles each of them once, whatever the size.

    Attributes:
        kernel: FILE:FUNCTION, e.g. "selective_scan:carry".
        size: e.g. "16384 tokens x 1024 bf16".
        instance: its template arguments as the compiler prints them, e.g. "float, true".
        warps: a block.
        shared_bytes: shared memory that this launch asks for.
        most_shared_bytes: the most that any launch asks for.
        work: what the launch does.
    """

    kernel: str
    size: str
    instance: str
    warps: int
    shared_bytes: int
    most_shared_bytes: int
    work: Work


def all_cases() -> Iterator[KernelCase]:
    """The Triton cases of every module in this folder."""
    for module in _modules():
        yield from getattr(module, "kernel_cases", tuple)()


def all_cuda_cases() -> Iterator[CudaCase]:
    """The CUDA C++ cases of every module in this folder."""
    for module in _modules():
        yield from getattr(module, "cuda_cases", tuple)()


def _modules() -> Iterator[ModuleType]:
    for name in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        yield importlib.import_module(f"{__name__}.{name}")
