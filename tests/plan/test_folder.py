"""Run folders: nothing is replaced that no run made, and two processes take turns."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from uqabench.errors import InputError
from uqabench.locks import folder_lock
from uqabench.plan.folder import MARKER, claimed, run_folder

HOLDER = """
import sys, time
from pathlib import Path
from uqabench.plan.folder import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", ".hidden", "../x"])
def test_names_that_are_no_folder_names(tmp_path, name):
    with pytest.raises(InputError, match="is no folder name"):
        run_folder(tmp_path, name)


def test_a_folder_that_no_run_made_is_left_alone(tmp_path):
    folder = tmp_path / "thesis"
    (folder / "tables").mkdir(parents=True)
    (folder / "tables" / "results.md").write_text("mine")
    with pytest.raises(InputError, match="no run of this version has made"), claimed(folder):
        pass
    assert [path.name for path in folder.rglob("*")] == ["tables", "results.md"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"), claimed(tmp_path / "file"):
        pass


def test_an_empty_folder_and_a_run_are_taken(tmp_path):
    (tmp_path / "run").mkdir()
    for _ in range(2):
        with claimed(tmp_path / "run"):
            assert (tmp_path / "run" / MARKER).exists()


def test_a_link_to_another_disk_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    with claimed(tmp_path / "run"):
        pass
    assert (tmp_path / "run").is_symlink() and (tmp_path / "disk" / MARKER).exists()


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder `run` until it is told to go, or killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_told_who_holds_the_folder(holder, tmp_path):
    with pytest.raises(InputError, match=rf"in use by process {holder.pid} .*--wait"), claimed(tmp_path / "run"):
        pass


def test_a_second_process_can_wait(holder, tmp_path):
    holder.stdin.close()
    with claimed(tmp_path / "run", wait=True):
        assert holder.wait(timeout=30) == 0


def test_a_killed_process_frees_the_folder(holder, tmp_path):
    holder.kill()
    holder.wait()
    for _ in range(50):  # the system frees the lock a moment after the process is gone
        try:
            with claimed(tmp_path / "run"):
                return
        except InputError:
            time.sleep(0.1)
    pytest.fail("the lock of a dead process is still held")


def test_a_lock_of_this_process_is_one_too(tmp_path):
    with folder_lock(tmp_path / "x"), pytest.raises(InputError, match="in use by process"):
        with folder_lock(tmp_path / "x"):
            pass
