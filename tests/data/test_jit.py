"""Machine code is kept where it can be."""

from __future__ import annotations

import subprocess
import sys

READ_ONLY = """
import os, tempfile
import numba, numpy as np
from numba.core import caching

def refuse(self):
    if not self.get_cache_path().startswith(tempfile.gettempdir()):
        raise OSError("read-only")
    os.makedirs(self.get_cache_path(), exist_ok=True)

caching._CacheLocator.ensure_cache_path = refuse
from uqabench.data import packer
packer._cuts(np.array([1, 1]), 2)
print(numba.config.CACHE_DIR)
"""


def test_a_read_only_installation_keeps_its_machine_code(tmp_path):
    """Only folders among the temporary files can be written, as for a user without a home."""
    environment = {"TMPDIR": str(tmp_path), "PATH": "/bin"}
    done = subprocess.run([sys.executable, "-c", READ_ONLY], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout and list(tmp_path.rglob("packer._cuts*.nbi"))
    assert next(tmp_path.iterdir()).stat().st_mode & 0o077 == 0
