"""Compiles GPU kernels without a GPU and reads what they take: registers, spills, shared memory.

Triton kernels go through `triton.compile` for a named architecture, CUDA C++ ones through nvcc; both cubins are read
by `cuobjdump --dump-resource-usage`, which triton's wheel brings. Triton must not interpret (TRITON_INTERPRET unset).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.gpu_cases import KernelCase, all_cuda_cases

SHARED_LIMIT = {80: 163 << 10, 90: 227 << 10}
"""Most shared memory of one block, bytes, by architecture (CUDA C++ Programming Guide, "Compute Capabilities")."""
RESERVED_SHARED = {80: 0, 90: 1024}
"""Bytes a block that cuobjdump counts and the limit of a launch does not: the driver's own."""

CUDA_CONFIG = "nvcc"
"""The configuration of CUDA C++ kernels: they have but one."""

CSRC = Path(__file__).parents[1] / "csrc"
_USAGE = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


@dataclass(frozen=True)
class Figures:
    """What one compiled kernel takes.

    registers: a thread. spill_bytes: local memory a thread, bytes. shared_bytes: a block, bytes, without what the
    driver keeps. hot: whether spills are a fault. missing: texts of the case's `expects` that its PTX lacks.
    """

    kernel: str
    size: str
    config: str
    arch: int
    registers: int
    spill_bytes: int
    shared_bytes: int
    hot: bool = True
    missing: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.kernel, self.size, self.config, self.arch

    def to_row(self) -> dict[str, Any]:
        """The fields of a row in a result file."""
        row = asdict(self)
        del row["missing"]
        return row

    def problems(self) -> list[str]:
        """One sentence for each hard limit that the kernel passes."""
        where = f"{self.kernel} [{self.size}; {self.config}] on sm_{self.arch}"
        found = []
        if self.hot and self.spill_bytes:
            found.append(f"{where}: {self.spill_bytes} bytes a thread spill, and a hot kernel may spill none.")
        limit = SHARED_LIMIT[self.arch]
        if self.shared_bytes > limit:
            found.append(f"{where}: {self.shared_bytes} bytes of shared memory, and a block may have {limit}.")
        found += [f"{where}: its PTX has no '{text}'." for text in self.missing]
        return found


def config_name(config: Any) -> str:
    """A `triton.Config` as text: its constants, warps and stages."""
    parts = [f"{name}={value}" for name, value in config.kwargs.items()]
    parts += [f"warps={config.num_warps}", f"stages={config.num_stages}"]
    if getattr(config, "maxnreg", None):
        parts.append(f"maxnreg={config.maxnreg}")
    return " ".join(parts)


PROOFS = {"descriptors": ("cp.async.bulk.tensor",), "specialised": ("cp.async.bulk.tensor", "setmaxnreg")}
"""By how a configuration's tiles come (its LOADS) what its PTX must hold: the compiler drops silently what it cannot
do."""


def launched_warps(config: str) -> int:
    """Warps of a block under the configuration of that name: where they are specialised, Triton takes those that are
    asked for three times, to copy and twice to compute."""
    warps = int(config.partition("warps=")[2].split()[0])
    return 3 * warps if "LOADS=specialised" in config else warps


def compile_case(case: KernelCase, config: Any, arch: int) -> Figures:
    """Compile one kernel under one configuration for sm_`arch`. Raises what triton raises."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = case.function.arg_names
    constants = {**case.constants, **{k: v for k, v in config.kwargs.items() if k in names}}
    signature = {name: "constexpr" if name in constants else case.signature[name] for name in names}
    aligned = [i for i, n in enumerate(names) if signature[n].startswith("*") or n in case.aligned]
    source = ASTSource(
        fn=case.function,
        signature=signature,
        constexprs=constants,
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    if getattr(config, "maxnreg", None):
        options["maxnreg"] = config.maxnreg
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    ptx = compiled.asm["ptx"]
    expected = (*case.expects.get(f"sm_{arch}", ()), *PROOFS.get(constants.get("LOADS"), ()))
    ((_, registers, spill, _),) = list(_usage(compiled.asm["cubin"]))
    return Figures(
        kernel=case.kernel,
        size=case.size,
        config=config_name(config),
        arch=arch,
        registers=registers,
        spill_bytes=spill,
        shared_bytes=int(compiled.metadata.shared),
        hot=case.hot,
        missing=tuple(text for text in expected if text not in ptx),
    )


def _usage(cubin: bytes) -> Iterator[tuple[str, int, int, int]]:
    """(function, registers, bytes of local memory a thread, bytes of shared memory a block) of every kernel."""
    import triton

    program = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(program), "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name, registers, stack, shared, local in _USAGE.findall(text):
        yield name, int(registers), max(int(stack), int(local)), int(shared)


def nvcc() -> str | None:
    """The CUDA compiler, or None."""
    return shutil.which("nvcc") or next((str(p) for p in [Path("/usr/local/cuda/bin/nvcc")] if p.exists()), None)


def cuda_sources() -> list[Path]:
    """The CUDA C++ files, each with its kernels instantiated."""
    return sorted((CSRC / "cuda").glob("*.cu"))


def compile_cuda(source: Path, arch: int) -> list[Figures]:
    """Every kernel of one .cu file, with the most shared memory that a launch asks for if it has a case.

    The kernel's name is FILE:FUNCTION; its template arguments stand in `size`. Raises CalledProcessError with nvcc's
    messages in `stderr`.
    """
    asked = {case.kernel: case.most_shared_bytes for case in all_cuda_cases()}
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "x.cubin"
        flags = ["-std=c++17", "-O3", f"-arch=sm_{arch}", f"-I{CSRC}", "-cubin", "-o", str(cubin)]
        subprocess.run([str(nvcc()), *flags, str(source)], capture_output=True, text=True, check=True)
        found = list(_usage(cubin.read_bytes()))
    rows = []
    for mangled, registers, spill, shared in found:
        function, arguments = _demangled(mangled)
        kernel = f"{source.stem}:{function}"
        shared = max(0, shared - RESERVED_SHARED[arch]) + asked.get(kernel, 0)
        rows.append(Figures(kernel, arguments, CUDA_CONFIG, arch, registers, spill, shared))
    return sorted(rows, key=lambda row: row.key)


def _demangled(name: str) -> tuple[str, str]:
    """("scan_forward", "float, 32") of a mangled kernel name; the name itself where nothing can demangle it."""
    program = shutil.which("cu++filt") or shutil.which("c++filt")
    if program is None:
        return name, ""
    text = subprocess.run([program, name], capture_output=True, text=True, check=True).stdout.strip()
    return function_and_arguments(text)


def function_and_arguments(text: str) -> tuple[str, str]:
    """("scan_forward", "float, 32") of a kernel's name as compilers and profilers print it."""
    text = text.replace("(anonymous namespace)::", "").replace("<unnamed>::", "").removeprefix("void ")
    function, _, arguments = _until_call(text).partition("<")
    return function.rpartition("::")[2], arguments.removesuffix(">").strip()


def _until_call(text: str) -> str:
    """`f<g(1)>(int)` up to the parenthesis that opens the parameters."""
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            return text[:i]
    return text
