"""The CUDA kernels on the CPU: compiled against tests/cuda/emulate.h, under the sanitizers where the compiler has them.

A call of the backend goes through a file to a program and comes back, so what the sanitizers find ends that program
and not the tests.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).parents[2]
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def compile_program(source: Path, to: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A C++ program that includes the kernels, without nvcc."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler is found")
    warnings = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")
    include = (f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests' / 'cuda'}")
    command = [compiler, "-std=c++20", "-O1", "-g1", *warnings, *include, *options, str(source), "-o", str(to)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """`build(source)`: the compiled program."""
    folder = tmp_path_factory.mktemp("cuda")

    @cache
    def build(source: Path) -> Path:
        program = folder / source.stem
        done = compile_program(source, program, *SANITIZERS)
        if done.returncode != 0 and "sanitize" in done.stderr + done.stdout:  # its runtime is not installed
            done = compile_program(source, program)
        assert done.returncode == 0, done.stderr[-4000:]
        return program

    return build


def extent(x: Tensor) -> Tensor:
    """All memory from the tensor's first element to its last, as one dimension."""
    last = sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True)) if x.numel() else -1
    return torch.as_strided(x.detach(), (last + 1,), (1,), x.storage_offset())


def run_emulated(
    program: Path, what: str, order: str, sizes: Sequence[int], tensors: Sequence[Tensor | None], folder: Path
) -> str:
    """Runs the program on tensors' memory in place; what it prints. Fails with what it or a sanitizer says."""
    extents = [None if x is None else extent(x) for x in tensors]
    path = folder / "call"
    with path.open("wb") as file:
        file.write(struct.pack(f"{len(sizes) + 2}q", len(sizes), *sizes, len(tensors)))
        for x in extents:
            file.write(struct.pack("q", -1 if x is None else x.numel() * x.element_size()))
            if x is not None:
                file.write(x.view(torch.uint8).numpy().tobytes())
    done = subprocess.run([program, what, order, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    data, at = bytearray(path.read_bytes()), 0
    for x in extents:
        if x is not None and x.numel():
            count = x.numel() * x.element_size()
            x.copy_(torch.frombuffer(data, dtype=x.dtype, count=x.numel(), offset=at))
            at += count
    assert at == len(data)
    return done.stdout
