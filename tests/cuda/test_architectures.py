"""What CMake makes of a CUDA compiler that does not know every architecture, or none."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NVCC = shutil.which("nvcc")
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="nvcc is not found")
pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not found")

PROBE = """cmake_minimum_required(VERSION 3.20)
project(choice LANGUAGES NONE)
include({folder}/architectures.cmake)
uqabench_cuda_architectures(found problem 80 90)
message(STATUS "found <${{found}}> problem <${{problem}}>")
"""
# Takes the place of pybind11, which an installation fetches: what is looked at is the choice of compilers.
PYBIND11 = """function(pybind11_add_module name)
  list(REMOVE_ITEM ARGN NO_EXTRAS)
  add_library(${name} MODULE ${ARGN})
endfunction()
function(pybind11_strip)
endfunction()
"""


def old_nvcc(folder: Path, *unknown: int) -> Path:
    """A compiler that refuses these architectures in nvcc's words, and is nvcc for the rest, where there is one."""
    path = folder / "nvcc"
    patterns = "|".join(f"*{kind}_{number}*" for number in unknown for kind in ("compute", "sm"))
    refusal = f"nvcc fatal   : Unsupported gpu architecture 'compute_{unknown[-1]}'"
    otherwise = f'exec {NVCC} "$@"' if NVCC else "exit 1"
    path.write_text(f'#!/bin/sh\ncase "$*" in {patterns}) echo "{refusal}" >&2; exit 1;; esac\n{otherwise}\n')
    path.chmod(0o755)
    return path


def cmake(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["cmake", *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("unknown", "found"),
    [
        pytest.param((), "80-real;90", marks=[needs_nvcc, pytest.mark.slow]),
        pytest.param((90,), "80", marks=[needs_nvcc, pytest.mark.slow]),
        ((80, 90), ""),
    ],
)
def test_the_architectures_that_a_compiler_knows(unknown: tuple[int, ...], found: str, tmp_path: Path):
    (tmp_path / "CMakeLists.txt").write_text(PROBE.format(folder=ROOT / "csrc" / "cuda"))
    compiler = old_nvcc(tmp_path, *unknown) if unknown else NVCC
    done = cmake("-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_CUDA_COMPILER={compiler}")
    assert done.returncode == 0, done.stderr
    assert f"found <{found}>" in done.stdout
    if NVCC and not found:
        assert "Unsupported gpu architecture" in done.stdout


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("wanted", ["auto", "on"])
def test_a_compiler_that_is_too_old_leaves_the_cpu(wanted: str, tmp_path: Path):
    (tmp_path / "pybind11Config.cmake").write_text(PYBIND11)
    done = cmake(
        "-S", ROOT, "-B", tmp_path / "build", f"-DCMAKE_CUDA_COMPILER={old_nvcc(tmp_path, 80, 90)}",
        f"-Dpybind11_DIR={tmp_path}", f"-DUQABENCH_CUDA={wanted}", f"-DPython_EXECUTABLE={sys.executable}",
        f"-DPython_INCLUDE_DIR={sysconfig.get_path('include')}",
    )  # fmt: skip
    message = " ".join(done.stderr.split())
    assert "cannot compile the CUDA kernels (nvcc fatal : Unsupported gpu architecture 'compute_90')" in message
    if wanted == "auto":
        assert done.returncode == 0 and "uqabench is built for CPU only" in message
        assert "uqabench_cuda" not in cmake("--build", tmp_path / "build", "--target", "help").stdout
    else:
        assert done.returncode != 0 and "UQABENCH_CUDA is on, but" in message
