"""`python -m tests.sanitize`: every native kernel under clang's sanitizers, in minutes. Exits with 1 on a finding.

The kernels are called as every operator's example calls them (record.py), on every instruction set that this machine
has, on one thread and several, and from two Python threads at once.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pybind11

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "sanitize"
SANITIZERS = {"address": "address,undefined", "thread": "thread"}
INSTALL = "on Debian and Ubuntu: apt-get install clang libomp-dev python3-dev"


def find_compiler() -> str:
    """A clang++ with the sanitizers' runtimes. SystemExit says what is missing."""
    compiler = os.environ.get("CLANG", "clang++")
    if shutil.which(compiler) is None:
        sys.exit(f"{compiler} is not installed; {INSTALL}. The variable CLANG names another clang++.")
    for name in ("asan", "tsan"):
        library = f"libclang_rt.{name}-{os.uname().machine}.a"
        found = subprocess.run([compiler, f"-print-file-name={library}"], capture_output=True, text=True).stdout.strip()
        if not Path(found).exists():
            sys.exit(f"{compiler} has no {library}; {INSTALL}.")
    return compiler


def find_archer(folder: Path) -> str:
    """The tool by which the OpenMP runtime tells the thread sanitizer what it synchronises. SystemExit if missing."""
    cache = (folder / "CMakeCache.txt").read_text()
    runtime = re.search(r"^OpenMP_\w*omp_LIBRARY:\w+=(.+)$", cache, re.MULTILINE)
    archer = Path(runtime[1]).resolve().with_name("libarcher.so") if runtime else None
    if archer is None or not archer.exists():
        sys.exit(f"clang's OpenMP runtime or its libarcher.so is missing; {INSTALL}.")
    return str(archer)


def build(compiler: str, name: str) -> Path:
    """The folder with the module and the interpreter built with sanitizer `name`."""
    folder = BUILD / name
    options = {
        "CMAKE_BUILD_TYPE": "RelWithDebInfo",  # keeps the symbols
        "CMAKE_CXX_COMPILER": compiler,
        "UQABENCH_SANITIZE": SANITIZERS[name],
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "UQABENCH_CUDA": "off",  # tests/cuda has its own sanitized build
    }
    settings = [f"-D{key}={value}" for key, value in options.items()]
    subprocess.run(["cmake", "-S", ROOT, "-B", folder, *settings, "--log-level=WARNING"], check=True)
    subprocess.run(["cmake", "--build", folder, "--parallel", str(os.cpu_count())], check=True)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """For the interpreter built with a sanitizer: it is in no virtual environment, and asks malloc for all memory."""
    return os.environ | {
        "PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}",
        "PYTHONPATH": sysconfig.get_path("platlib"),
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0",  # Python frees little at its end
        "UBSAN_OPTIONS": "print_stacktrace=1",
        # Python, NumPy and the OpenMP runtime are not instrumented; archer tells what the last synchronises.
        "TSAN_OPTIONS": "halt_on_error=1:ignore_noninstrumented_modules=1",
        "OMP_TOOL_LIBRARIES": find_archer(folder),
    }


def main() -> int:
    compiler = find_compiler()
    recording = BUILD / "calls.pickle"
    BUILD.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "tests.sanitize.record", recording], cwd=ROOT, check=True)
    status = 0
    for name in SANITIZERS:
        folder = build(compiler, name)
        # The thread sanitizer's memory map leaves no room for randomly placed libraries.
        command = ["setarch", "-R", folder / "python", "-m", "tests.sanitize.child", recording, folder]
        print(f"{name} sanitizer:", flush=True)
        status |= subprocess.run(command, cwd=ROOT, env=environment(folder)).returncode != 0
    return status


if __name__ == "__main__":
    sys.exit(main())
