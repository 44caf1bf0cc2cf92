"""What nvcc makes of the kernels, without a GPU: registers and spills. Skipped where there is no nvcc."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "csrc" / "cuda" / "selective_scan.cu"
KERNELS = (
    "scan_ends", "scan_forward", "carry", "scan_ends_backward", "scan_backward", "sum_tokens", "sum_parameters",
)  # fmt: skip
PAIRS = ("scan_forward of pairs", "scan_backward of pairs")  # of channels, one a thread
MOST_REGISTERS = {"scan_forward": 80, PAIRS[0]: 96, "scan_backward": 168, PAIRS[1]: 255}  # 6, 5, 3 and 2 blocks


def find_cuobjdump() -> str | None:
    """The CUDA toolkit's or, where it is installed without that, Triton's."""
    if found := shutil.which("cuobjdump"):
        return found
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return str(path) if path.is_file() else None


def resources(architecture: str, folder: Path) -> dict[str, list[dict[str, int]]]:
    """For each kernel its instances' REG, STACK, SHARED and LOCAL, as cuobjdump counts them."""
    compiler, dump = shutil.which("nvcc"), find_cuobjdump()
    if compiler is None or dump is None:
        pytest.skip("nvcc or cuobjdump is not found")
    cubin = folder / f"{architecture}.o"
    command = [compiler, "-std=c++17", "-O3", f"-I{ROOT / 'csrc'}", f"-arch={architecture}", "-c", SOURCE, "-o", cubin]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    text = subprocess.run([dump, "--dump-resource-usage", cubin], capture_output=True, text=True, check=True).stdout
    found: dict[str, list[dict[str, int]]] = {}
    for function, usage in re.findall(r"Function (\w+):\s*\n\s*(.*)", text):
        (name,) = [kernel for kernel in KERNELS if f"{len(kernel)}{kernel}I" in function]
        numbers = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", usage)}
        found.setdefault(f"{name} of pairs" if "Li2E" in function else name, []).append(numbers)
    return found


@pytest.mark.parametrize("architecture", ["sm_90", pytest.param("sm_80", marks=pytest.mark.slow)])
def test_no_kernel_spills_and_every_one_leaves_registers_for_its_blocks(architecture: str, tmp_path: Path):
    found = resources(architecture, tmp_path)
    assert {name: len(instances) for name, instances in found.items()} == {
        name: 4 if name == "carry" else 2 for name in (*KERNELS, *PAIRS)
    }
    for name, instances in found.items():
        for usage in instances:
            assert usage["STACK"] == usage["LOCAL"] == 0, f"{name} spills: {usage}"
            assert usage["REG"] <= MOST_REGISTERS.get(name, 64), f"{name}: {usage}"
