"""What all result files share: the schema's number, the commit, and a check that they can be written."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from uqabench.errors import InputError

SCHEMA = 1


def commit(folder: Path = Path(__file__).parent) -> str:
    """The commit that is checked out around `folder`, with "-dirty" where files differ from it; "unknown" outside a
    git repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def check_writable(path: Path) -> None:
    """InputError now, rather than after all rows, if `path` cannot be written; makes its folder."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file for the results.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): choose another folder.") from error
