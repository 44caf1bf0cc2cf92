"""The wheel in a virtual environment that has never seen the checkout. It downloads torch and transformers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import uqabench

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TORCH = "torch==2.13.0+cpu"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
QUIET = ("-q", "--disable-pip-version-check")


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run outside the checkout, with nothing in the environment that leads back to it."""
    leading_back = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UQABENCH_HOME", "UQABENCH_BACKEND")
    environment = {name: value for name, value in os.environ.items() if name not in leading_back}
    return subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)


def succeed(*command: object, cwd: Path) -> str:
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the sources that nobody may write to (but root, who may anything)."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("csrc", "kernels", "uqabench"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with build isolation, so without torch."""
    folder, before = tmp_path_factory.mktemp("dist"), files(checkout)
    succeed(sys.executable, "-m", "pip", "wheel", *QUIET, "--no-deps", "-w", folder, checkout, cwd=folder)
    assert files(checkout) == before, "a build writes into the checkout"
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fresh")
    succeed(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    install = (python, "-m", "pip", "install", *QUIET)
    if run(*install, TORCH, cwd=folder).returncode:
        succeed(*install, "--extra-index-url", CPU_WHEELS, TORCH, cwd=folder)
    succeed(*install, f"{wheel}[llm]", cwd=folder)
    return python


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"uqabench", f"uqabench-{uqabench.__version__}.dist-info"}
    for needed in ("uqabench/cli.py", "uqabench/kernels/backend.py", "uqabench/configs/demo.yaml"):
        assert needed in names
    assert {"uqabench/questions/words.yaml", "uqabench/questions/kinds/next_item.yaml"} <= set(names)
    assert [name for name in names if name.startswith("uqabench/_native") and name.endswith(".so")]
    assert not [name for name in names if "/tests/" in name or name.endswith((".cpp", ".pyc"))]


def test_doctor_finds_the_default_path_working(python: Path, tmp_path: Path):
    report = succeed(python.with_name("uqabench"), "doctor", cwd=tmp_path)
    assert report.splitlines()[-1].startswith("ok: ")
    assert "uqabench._native      imports" in report and str(ROOT) not in report


def test_a_tiny_run(python: Path, tmp_path: Path):
    command = python.with_name("uqabench")
    output = succeed(command, "run", "--quiet", "--preset", "tiny", "--methods", "hstu,text20,oracle", cwd=tmp_path)
    assert "HSTU" in output and "Oracle" in output
    results = json.loads((tmp_path / "runs" / "tiny" / "results.json").read_text())
    assert results["methods"]["oracle"]["overall"]["accuracy"] == 100
    assert results["versions"]["torch"] == "2.13.0+cpu"
    where = succeed(python, "-c", "import uqabench; print(uqabench.__file__)", cwd=tmp_path)
    assert Path(where).is_relative_to(python.parents[1])


def test_a_missing_extra_is_named(python: Path, tmp_path: Path):
    done = run(python.with_name("uqabench"), "prepare", "completejourney", cwd=tmp_path)
    assert done.returncode == 2 and "uqabench[data]" in done.stderr and "Traceback" not in done.stderr
