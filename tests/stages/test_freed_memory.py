"""The C library keeps what training frees."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys, torch
from uqabench.stages.memory import keep_freed_memory

def resident():
    fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(fields["VmRSS"].split()[0]) / 1024

if sys.argv[1] == "keep":
    assert keep_freed_memory()
torch.ones(1)
before = resident()
x = torch.ones(64 << 18)
del x
print(resident() - before)
"""


def kept_mib(what: str) -> float:
    """Resident memory that 64 MiB leave behind when they are freed."""
    command = [sys.executable, "-c", PROGRAM, what]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other rules")
def test_freed_memory_stays_with_the_process():
    assert kept_mib("keep") > 56
    assert kept_mib("default") < 8
