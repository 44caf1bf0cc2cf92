"""Kernels are compiled ahead of time, without a GPU, and stay within limits and recorded figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import aot, gpu_cases
from bench.compiled import Figures, compile_cuda, launched_warps, nvcc
from bench.occupancy import blocks_a_multiprocessor

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]

TOY = """
import triton, triton.language as tl
from bench.gpu_cases import KernelCase, Work

@triton.jit
def double(x, y, n, BLOCK: tl.constexpr, SPILL: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + at, mask=at < n)
    tl.store(y + at, v * 2, mask=at < n)

@triton.jit
def product(a, b, c, BLOCK: tl.constexpr, LOADS: tl.constexpr = "pointers"):
    i = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    tl.store(c + i, tl.dot(tl.load(a + i), tl.load(b + i)))

def all_cases():
    configs = [triton.Config({"BLOCK": n}, num_warps=4) for n in (256, 1024)]
    types = {"x": "*bf16", "y": "*bf16", "n": "i32"}
    yield KernelCase("double", "bf16", double, types, {"SPILL": False}, configs, lambda c: Work(bytes=4e6, blocks=64))
    types = {"a": "*bf16", "b": "*bf16", "c": "*fp32"}
    yield KernelCase("product", "bf16", product, types, {"LOADS": "pointers"},
                     [triton.Config({"BLOCK": 64}, num_warps=4)],
                     lambda c: Work(tensor_flops=2 * 64**3, useful_flops=2 * 64**3, bytes=32e3),
                     expects={"sm_90": (EXPECTED,), "sm_80": ("mma.sync",)})
"""


def compile_toys(
    folder: Path, *arguments: str, expected: str = "wgmma", loads: str = "pointers"
) -> subprocess.CompletedProcess[str]:
    text = TOY.replace("EXPECTED", repr(expected)).replace('{"LOADS": "pointers"}', f'{{"LOADS": "{loads}"}}')
    (folder / "toy_cases.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "TRITON_INTERPRET": "1"}
    common = ["--cases", "toy_cases", "--no-cuda", "--budget", str(folder / "budget.json")]
    command = [sys.executable, "-m", "bench.aot", *common, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)


def test_kernels_are_compiled_recorded_and_compared(tmp_path: Path):
    unknown = compile_toys(tmp_path, "--json", str(tmp_path / "out.json"))
    assert unknown.returncode == 1 and unknown.stderr.count("nothing is recorded") == 6
    report = json.loads((tmp_path / "out.json").read_text())
    assert {"schema", "machine", "commit", "rows"} == set(report)
    assert [row["kernel"] for row in report["rows"]] == ["double"] * 4 + ["product"] * 2
    for row in report["rows"]:
        assert set(row) == {"kernel", "size", "config", "arch", "registers", "spill_bytes", "shared_bytes", "hot"}
        assert 8 <= row["registers"] <= 255 and row["spill_bytes"] == 0
    assert report["rows"][-1]["shared_bytes"] >= 2 * 64 * 64 * 2

    recorded = compile_toys(tmp_path, "--record")
    assert recorded.returncode == 0, recorded.stderr
    assert "blocks/SM" in recorded.stdout and "6 compiled, 0 problems" in recorded.stdout

    budget = json.loads((tmp_path / "budget.json").read_text())
    budget["rows"][0]["registers"] = 1
    (tmp_path / "budget.json").write_text(json.dumps(budget))
    grown = compile_toys(tmp_path, "--kernels", "double", "--arch", "80")
    assert grown.returncode == 1
    assert grown.stderr.startswith("double [bf16; BLOCK=1024 warps=4 stages=3] on sm_80: registers is ")


def test_a_text_that_the_ptx_lacks_is_named(tmp_path: Path):
    done = compile_toys(tmp_path, "--kernels", "product", "--record", expected="no.such.text")
    assert done.returncode == 1 and "product [bf16; BLOCK=64 warps=4 stages=3] on sm_90: its PTX has no" in done.stderr


def test_copies_that_the_compiler_did_not_make_are_named(tmp_path: Path):
    done = compile_toys(tmp_path, "--kernels", "product", "--arch", "90", "--record", loads="specialised")
    assert done.returncode == 1
    assert "its PTX has no 'cp.async.bulk.tensor'" in done.stderr and "its PTX has no 'setmaxnreg'" in done.stderr


def test_limits():
    fine = Figures("k", "d", "c", 90, 255, 0, 227 << 10)
    assert fine.problems() == []
    assert "spill" in replace(fine, spill_bytes=8).problems()[0]
    assert replace(fine, spill_bytes=8, hot=False).problems() == []
    assert "232449 bytes of shared memory" in replace(fine, shared_bytes=(227 << 10) + 1).problems()[0]
    assert replace(fine, arch=80).problems()


def test_wrong_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert aot.main(["--arch", "70"]) == 2
    assert capsys.readouterr().err == "--arch has '70': choose from 80, 90.\n"
    done = compile_toys(tmp_path, "--kernels", "no_such_kernel")
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_occupancy():
    assert launched_warps("STREAM=64 LOADS=specialised warps=4 stages=3") == 12
    assert launched_warps("STREAM=64 LOADS=descriptors warps=8 stages=3") == 8
    assert blocks_a_multiprocessor(128, 0, 4, 90) == 4
    assert blocks_a_multiprocessor(32, 0, 4, 90) == 16
    assert blocks_a_multiprocessor(168, 100 << 10, 8, 90) == 1
    assert blocks_a_multiprocessor(16, 0, 1, 80) == 32
    assert blocks_a_multiprocessor(255, 0, 16, 90) == 0


@pytest.mark.skipif(nvcc() is None, reason="no nvcc")
def test_cuda_kernels_are_read_one_by_one(tmp_path: Path):
    source = tmp_path / "toy.cu"
    source.write_text(
        "namespace { template <class T, int N> __global__ void twice(T* x) { __shared__ T s[256]; s[threadIdx.x] = "
        "x[threadIdx.x + 1]; __syncthreads(); x[threadIdx.x] = s[N]; }\n"
        "template __global__ void twice<float, 3>(float*); template __global__ void twice<double, 4>(double*); }"
    )
    for arch in (80, 90):
        rows = compile_cuda(source, arch)
        assert [(row.kernel, row.shared_bytes) for row in rows] == [("toy:twice", 2048), ("toy:twice", 1024)]
        assert all(row.arch == arch and row.registers and not row.spill_bytes for row in rows)


def run_real(*arguments: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "bench.aot", *arguments], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.skipif(not list(gpu_cases.all_cases()), reason="no kernel has a case")
def test_each_kernel_compiles_within_its_budget():
    run_real("--subset", "--no-cuda")


@pytest.mark.slow
@pytest.mark.skipif(not list(gpu_cases.all_cases()), reason="no kernel has a case")
def test_every_configuration_compiles_within_its_budget():
    run_real()


def test_what_is_recorded_still_exists():
    names = {case.kernel for case in gpu_cases.all_cases()}
    files = {source.stem for source in aot.cuda_sources()}
    for kernel, *_ in aot.read_budget():
        assert kernel in names or kernel.partition(":")[0] in files, f"{kernel} is recorded and has no case"
