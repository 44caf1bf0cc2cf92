"""The steps around the measurements, each a process of its own that its time limit ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
GPU_TESTS = ROOT / "tests" / "kernels" / "gpu"


@dataclass(frozen=True)
class Step:
    """What a step came to. result: "ok", "failed", "left out" or "time over"; text: one line that says more."""

    name: str
    result: str
    seconds: float
    text: str = ""

    def to_row(self) -> dict[str, Any]:
        return {"name": self.name, "result": self.result, "seconds": self.seconds, "text": self.text}


@dataclass(frozen=True)
class Ended:
    """A process that ended by itself (`code`) or was ended (`is_over`); `output` is all that it printed."""

    code: int
    is_over: bool
    seconds: float
    output: str


def run(command: Sequence[str], seconds: float, environment: Mapping[str, str], log: Path) -> Ended:
    """Run a command in a process group of its own, and end the group after `seconds`. The output goes to `log`."""
    started = time.monotonic()
    is_over = False
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=dict(environment), stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(timeout=max(1.0, seconds))
        except subprocess.TimeoutExpired:
            is_over = True
        if is_over or process.returncode:
            _end(process)
    return Ended(process.returncode or 0, is_over, time.monotonic() - started, log.read_text(errors="replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """The whole group: pytest and compilers start processes of their own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        process.wait(timeout=10)  # one that hangs in the driver cannot be ended at all
    except subprocess.TimeoutExpired:
        process.returncode = -signal.SIGKILL


_FINDER = """
import importlib.machinery, os, sys

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        here = os.path.dirname(os.path.abspath(__file__))
        return importlib.machinery.PathFinder.find_spec(name, [here]) if name == "uqabench" else None

sys.meta_path.insert(0, Finder)
"""
"""Python runs it as `sitecustomize`: `uqabench` is the folder of links, though Python and pytest put the tree first."""


def installed(environment: Mapping[str, str]) -> bool:
    """Whether `import uqabench.kernels` finds this tree's files."""
    code = "import uqabench.kernels, os; print(os.path.realpath(uqabench.kernels.__file__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(environment), cwd="/")
    return done.returncode == 0 and done.stdout.strip().startswith(str(ROOT.resolve()))


def build(scratch: Path, seconds: float, environment: dict[str, str]) -> Step:
    """Make `uqabench` importable from this tree: as installed, else as links in `scratch` beside a module built there.

    Sets PYTHONPATH in `environment`. Nothing is installed and nothing is fetched.
    """
    started = time.monotonic()
    if installed(environment):
        return Step("build", "ok", time.monotonic() - started, f"already installed; {_native(environment)}")
    package = scratch / "site" / "uqabench"
    package.mkdir(parents=True, exist_ok=True)
    for path in (*(ROOT / "uqabench").iterdir(), ROOT / "kernels"):
        link = package / path.name
        if path.name != "__pycache__" and not link.exists():
            link.symlink_to(path)
    (scratch / "site" / "sitecustomize.py").write_text(_FINDER)
    given = [environment["PYTHONPATH"]] if environment.get("PYTHONPATH") else []
    environment["PYTHONPATH"] = os.pathsep.join([str(scratch / "site"), str(ROOT), *given])
    problem = _build_native(scratch, package, seconds, environment)
    if not installed(environment):
        check = run([sys.executable, "-c", "import uqabench.kernels"], 60, environment, scratch / "import.log")
        return Step("build", "failed", time.monotonic() - started, last_line(check.output))
    return Step("build", "ok", time.monotonic() - started, problem or _native(environment))


def _build_native(scratch: Path, package: Path, seconds: float, environment: Mapping[str, str]) -> str | None:
    """Build uqabench._native by cmake into `package`; what is missing or failed, in one line."""
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "no native module: Python.h is missing (the package python3-dev has it)"
    pybind = run([sys.executable, "-m", "pybind11", "--cmakedir"], 30, environment, scratch / "pybind.log")
    if shutil.which("cmake") is None or pybind.code:
        return f"no native module: {'cmake' if shutil.which('cmake') is None else 'pybind11'} is missing"
    folder = scratch / "native"
    configure = ["cmake", "-S", str(ROOT), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release"]
    configure += [f"-Dpybind11_DIR={last_line(pybind.output)}", f"-DPython_EXECUTABLE={sys.executable}"]
    configure += ["-G", "Ninja"] if shutil.which("ninja") else []
    started = time.monotonic()
    for command in (configure, ["cmake", "--build", str(folder), "-j", str(os.cpu_count() or 2)]):
        done = run(command, seconds - (time.monotonic() - started), environment, scratch / "cmake.log")
        if done.is_over or done.code:
            return f"no native module: {'its building took too long' if done.is_over else last_line(done.output)}"
    for module in folder.glob("_native*.so"):
        shutil.copy(module, package / module.name)
    return None


def _native(environment: Mapping[str, str]) -> str:
    code = "import uqabench._native as n; print('with' if getattr(n, 'has_cuda', False) else 'without')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(environment), cwd="/")
    if done.returncode:
        return f"no native module ({last_line(done.stderr)})"
    nvcc = "" if shutil.which("nvcc") else "; no nvcc here"
    return f"native module {done.stdout.strip()} CUDA kernels{nvcc}"


def compile_ahead(scratch: Path, seconds: float, environment: Mapping[str, str], *, is_subset: bool) -> Step:
    """Every kernel for sm_90, a subset of its configurations if a GPU waits."""
    command = [sys.executable, "-m", "bench.aot", "--arch", "90", "--seconds", f"{0.8 * seconds:.0f}"]
    command += ["--processes", str(min(12, os.cpu_count() or 2)), *(["--subset", "--no-cuda"] if is_subset else [])]
    done = run(command, seconds, environment, scratch / "aot.log")
    return judged("ahead-of-time compilation", done)


def tests(scratch: Path, seconds: float, environment: Mapping[str, str]) -> Step:
    """The tests of the GPU kernels, each file in its own process, all at once; unfinished ones are told."""
    files = sorted(GPU_TESTS.glob("test_*.py"))
    started = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-m", "not slow", "--tb=line", "-v"]
    running = []
    for file in files:
        log = (scratch / f"{file.stem}.log").open("w")
        running.append(
            subprocess.Popen(
                [*command, str(file)], cwd=ROOT, env=dict(environment), stdout=log, stderr=log, start_new_session=True
            )
        )
    over = []
    for file, process in zip(files, running, strict=True):
        try:
            process.wait(timeout=max(1.0, seconds - (time.monotonic() - started)))
        except subprocess.TimeoutExpired:
            over.append(file.stem)
            _end(process)
    output = "\n".join((scratch / f"{file.stem}.log").read_text(errors="replace") for file in files)
    count = {word: len(re.findall(rf"^\S+::.* {word}\b", output, re.MULTILINE)) for word in ("PASSED", "FAILED")}
    broken = [f.stem for f, p in zip(files, running, strict=True) if p.returncode and f.stem not in over]
    failures = re.findall(r"^(\S+::.*?) FAILED", output, re.MULTILINE)[:5]
    text = "; ".join([f"{count['PASSED']} passed, {count['FAILED']} failed", *failures, *broken[:3]])
    text += f"; not finished: {', '.join(over)}" if over else ""
    result = "failed" if broken else "time over" if over else "ok"
    return Step("tests on the GPU", result, time.monotonic() - started, text)


def sanitize(
    scratch: Path, seconds: float, environment: Mapping[str, str], tools: Sequence[str] = ("memcheck", "racecheck")
) -> Iterator[Step]:
    """NVIDIA's memcheck and racecheck over the CUDA C++ kernels' tests; they report and never fail the run."""
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    for tool in tools:
        name = f"compute-sanitizer {tool}"
        if not Path(program).exists():
            yield Step(name, "left out", 0.0, "not installed")
            continue
        if not _native(environment).startswith("native module with CUDA"):
            yield Step(name, "left out", 0.0, "no CUDA C++ kernels were built")
            continue
        test = [sys.executable, "-m", "pytest", "-m", "not slow", "-x", "-k", "cuda and little", str(GPU_TESTS)]
        done = run([program, "--tool", tool, *test], seconds / len(tools), environment, scratch / f"{tool}.log")
        found = re.findall(r"(?:ERROR|RACECHECK) SUMMARY:.*", done.output)
        yield Step(
            name, "time over" if done.is_over else "ok", done.seconds, found[-1] if found else last_line(done.output)
        )


def judged(name: str, done: Ended) -> Step:
    result = "time over" if done.is_over else "failed" if done.code else "ok"
    return Step(name, result, done.seconds, last_line(done.output))


def last_line(output: str) -> str:
    """The last line with something on it, cut at 200 letters."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
