"""What this machine can do: the rate of large matrix products, the bandwidth of large copies, and its name."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

_GEMM_SIZE = 2048
_COPY_BYTES = 256 << 20
"""Far beyond any cache: a copy within one would promise a bandwidth that catalogue-sized tables never see."""


@dataclass(frozen=True)
class Machine:
    """Rates with torch's present number of threads.

    gemm_gflops: fp32 matrix products, 1e9 floating-point operations a second (a multiply-add is two).
    copy_gbps: copies in memory, 1e9 bytes a second, bytes read and bytes written both counted.
    cpu: the processor's name. isa: the instruction set that the native kernels use.
    """

    gemm_gflops: float
    copy_gbps: float
    cpu: str
    isa: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure_machine(repeats: int = 9, *, gemm_size: int = _GEMM_SIZE, copy_bytes: int = _COPY_BYTES) -> Machine:
    """Medians of `repeats` products of two (gemm_size, gemm_size) matrices, and of copies of `copy_bytes` bytes."""
    a, b = torch.randn(2, gemm_size, gemm_size)
    product = torch.empty_like(a)
    gemm_seconds = _median_seconds(lambda: torch.mm(a, b, out=product), repeats)
    source = torch.ones(copy_bytes // 4)
    target = torch.zeros_like(source)
    copy_seconds = _median_seconds(lambda: target.copy_(source), repeats)
    return Machine(
        gemm_gflops=2 * gemm_size**3 / gemm_seconds / 1e9,
        copy_gbps=2 * source.nbytes / copy_seconds / 1e9,
        cpu=cpu_name(),
        isa=instruction_set(),
    )


def _median_seconds(call: Callable[[], object], repeats: int) -> float:
    call()  # pages are mapped and threads start
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def cpu_name() -> str:
    """The processor's name, or what Python knows of it where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def instruction_set() -> str:
    """ "baseline", "avx2" or "avx512": what the native module dispatches to; without it, torch's own capability."""
    from uqabench.kernels.backend import native_module  # cpu_name() serves where nothing is installed yet

    try:
        return native_module().instruction_set()
    except RuntimeError:
        return f"torch: {torch.backends.cpu.get_cpu_capability()}"
