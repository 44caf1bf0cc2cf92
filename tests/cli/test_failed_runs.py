"""Valid input, but the machine or the training fails: exit code 1, and the same command goes on later."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from uqabench.errors import InputError, RunError


def test_a_folder_that_cannot_be_written(run, call, tmp_path, expect):
    (tmp_path / "file").write_text("")
    expect(run("--runs", str(tmp_path / "file")), 2, r"file/t cannot be locked .*choose a folder")
    expect(
        call("prepare", "synthetic", "--quiet", "--out", tmp_path / "file" / "store"), 2, r"file/store cannot be locked"
    )
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("stage", ["questions", "pretrain", "states", "align", "evaluate"])
def test_a_disk_that_fills_up_in_any_stage_fails_the_run_and_leaves_nothing(
    done, run, tmp_path, monkeypatch, stage, expect, debris
):
    """The manifest of the stage is the write that finds no room; the same command goes on when there is room."""
    shutil.rmtree(done / stage)
    original = Path.write_bytes

    def write(self, data):
        if re.search(rf"/\.?{stage}[./]", str(self)) and "manifest.json" in self.name:
            original(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return original(self, data)

    monkeypatch.setattr(Path, "write_bytes", write)
    expect(run(methods="sasrec,majority"), 1, rf"The disk is full while writing .*{stage}.*: free some space")
    assert not debris(tmp_path) and not list(done.glob(f"{stage}/**/manifest.json"))
    monkeypatch.undo()
    assert run(methods="sasrec,majority")[0] == 0
    assert list(done.glob(f"{stage}/**/manifest.json"))


def test_a_disk_that_is_really_full(run, tmp_path, expect, debris):
    """On a file system of a quarter of a megabyte, wherever its end is met; then with room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=260k", "uqabench-test", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    try:
        expect(run("--runs", str(disk)), 1, "The disk is full while writing .*: free some space")
        assert not [path for path in debris(disk) if path.suffix != ".work"]
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert run("--runs", str(disk))[0] == 0
        assert not debris(disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_loss_that_is_no_number_fails_the_run(run, tmp_path, expect, debris):
    line = expect(run("--set", "pretrain.optim.lr=1000", "--set", "pretrain.optim.warmup=0"), 1, "pretrain sasrec")
    assert "lower lr" in line
    assert not debris(tmp_path) and not list((tmp_path / "runs" / "t" / "pretrain").glob("*"))


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")],
)
def test_too_little_memory_fails_the_run(run, tmp_path, monkeypatch, error, expect):
    def too_large(*args, **options):
        raise error

    monkeypatch.setattr("uqabench.plan.nodes.build_questions", too_large)
    expect(run(), 1, "not enough memory.*token_budget")


def test_an_interrupted_run_says_how_to_go_on(run, monkeypatch, expect):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("uqabench.plan.nodes.build_questions", stop)
    expect(run(), 130, "stopped; the same command goes on")


def test_debug_raises(run, call, tmp_path):
    with pytest.raises(InputError, match="There is no method"):
        run("--debug", methods="hsut")
    with pytest.raises(RunError, match="pretrain sasrec"):
        run("--debug", "--set", "pretrain.optim.lr=1000", "--set", "pretrain.optim.warmup=0")
    with pytest.raises(InputError, match="config.json"):
        call("questions", "show", tmp_path, 0, "--debug")
