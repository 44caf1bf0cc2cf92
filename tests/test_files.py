"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from uqabench.errors import InputError, RunError
from uqabench.files import (
    atomic_folder,
    hash_json,
    is_disk_full,
    read_json,
    sha256_file,
    sweep,
    write_bytes,
    write_json,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_when_it_is_finished(tmp_path):
    with atomic_folder(tmp_path / "deep" / "x") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "deep" / "x").exists()
    assert names(tmp_path / "deep") == ["x"] and (tmp_path / "deep" / "x" / "a").read_text() == "1"


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), RunError("nan")])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a").write_text("old")
    with pytest.raises(type(error)), atomic_folder(tmp_path / "x") as folder:
        (folder / "a").write_text("new")
        raise error
    assert names(tmp_path) == ["x"] and (tmp_path / "x" / "a").read_text() == "old"


def test_the_new_folder_replaces_the_old_one_whole(tmp_path):
    for name in ("first", "second"):
        with atomic_folder(tmp_path / "x") as folder:
            (folder / name).write_text("")
    assert names(tmp_path) == ["x"] and names(tmp_path / "x") == ["second"]


def test_a_full_disk_names_the_folder(tmp_path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "elsewhere"))
    with (
        pytest.raises(RunError, match="The disk is full while writing .*x: free some space"),
        atomic_folder(tmp_path / "x"),
    ):
        raise full
    assert names(tmp_path) == []


def test_what_counts_as_a_full_disk():
    assert is_disk_full(OSError(errno.ENOSPC, "")) and is_disk_full(OSError(errno.EDQUOT, ""))
    assert is_disk_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied")) and not is_disk_full(ValueError("28"))


def test_a_real_full_device(tmp_path):
    """/dev/full refuses every write with ENOSPC."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with pytest.raises(RunError, match="The disk is full"), atomic_folder(tmp_path / "x") as folder:
        os.symlink("/dev/full", folder / "data.bin")
        with open(folder / "data.bin", "wb") as file:
            file.write(b"x")
    assert names(tmp_path) == []


@pytest.mark.parametrize("write", [lambda path: write_bytes(path, b""), lambda path: atomic_folder(path).__enter__()])
def test_a_place_that_cannot_be_written_is_named(tmp_path, write):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"Cannot write .*file/x \(.*\): choose a folder that you may write to"):
        write(tmp_path / "file" / "x")


def test_a_file_is_replaced_whole(tmp_path, monkeypatch):
    write_bytes(tmp_path / "a", b"old")

    def broken(self, data):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", broken)
    with pytest.raises(RunError, match="The disk is full while writing .*a:"):
        write_bytes(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"


def test_json_round_trip_in_the_order_given(tmp_path):
    value = {"b": 1, "a": [1.5, None, "用户"]}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert text.index('"b"') < text.index('"a"') and "用户" in text and text.endswith("}\n")


def test_no_number_that_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_broken_json_is_named(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.json is not readable JSON \(.*\): delete it"):
        read_json(tmp_path / "x.json")
    with pytest.raises(InputError, match="y.json does not exist: run the stage"):
        read_json(tmp_path / "y.json")


def test_sweep_takes_only_what_writers_of_that_path_left(tmp_path):
    for name in (".x.partial-1", ".x.old-2", ".xy.partial-3", "x.partial-4", ".z.partial-5"):
        (tmp_path / name).mkdir()
    (tmp_path / ".x.partial-6").write_text("")
    sweep(tmp_path / "x")
    assert names(tmp_path) == [".xy.partial-3", ".z.partial-5", "x.partial-4"]


def test_hashes(tmp_path):
    data = b"some bytes" * 300_000
    (tmp_path / "a").write_bytes(data)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1}) != hash_json({"a": 1, "b": [3]})


def test_sweep_takes_a_name_with_wildcards_as_it_is(tmp_path):
    for name in (".a*.partial-1", ".ab.partial-2"):
        (tmp_path / name).mkdir()
    sweep(tmp_path / "a*")
    assert names(tmp_path) == [".ab.partial-2"]


def fill(path, name):
    with atomic_folder(path) as folder:
        (folder / name).write_text("")
        (folder / "manifest.json").write_text("{}")


def test_a_link_stays_a_link_and_its_target_is_replaced(tmp_path):
    (tmp_path / "disk" / "data").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "data")
    for name in ("first", "second"):
        fill(tmp_path / "link", name)
        assert (tmp_path / "link").is_symlink() and names(tmp_path / "disk" / "data") == sorted([name, "manifest.json"])
    assert names(tmp_path) == ["disk", "link"] and names(tmp_path / "disk") == ["data"]
    (tmp_path / "dangling").symlink_to(tmp_path / "disk" / "new")
    fill(tmp_path / "dangling", "third")
    assert (tmp_path / "dangling").is_symlink() and names(tmp_path / "disk") == ["data", "new"]


def test_an_empty_folder_is_filled_and_stays_the_folder_that_it_is(tmp_path):
    (tmp_path / "x").mkdir(mode=0o700)
    before = (tmp_path / "x").stat()
    (tmp_path / "x" / ".x.partial-killed").mkdir()
    with pytest.raises(RunError), atomic_folder(tmp_path / "x") as folder:
        (folder / "a").write_text("")
        raise RunError("nan")
    sweep(tmp_path / "x")
    assert names(tmp_path / "x") == []
    fill(tmp_path / "x", "a")
    after = (tmp_path / "x").stat()
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    assert names(tmp_path / "x") == ["a", "manifest.json"] and names(tmp_path) == ["x"]


IN_A_MOUNT = """
import sys
from pathlib import Path
from uqabench.artifact import build
path = Path(sys.argv[1])
for name in ("first", "second"):
    def make(out, work):
        assert work.is_relative_to(path) and out.is_relative_to(path)
        (out / name).write_text("")
        return 1.0
    build(path, "stage", {"name": name}, {}, make)
    assert build(path, "stage", {"name": name}, {}, make)[1]
    print(sorted(file.name for file in path.iterdir()))
"""


def test_a_mount_point_is_written_to(tmp_path):
    """A real one, in a mount namespace of its own."""
    (tmp_path / "disk").mkdir()
    command = f'mount -t tmpfs none {tmp_path}/disk && mkdir {tmp_path}/disk/lost+found && exec "$@"'
    run = ["unshare", "--map-root-user", "--mount", "sh", "-c", command, "sh"]
    try:
        allowed = subprocess.run([*run, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("mount namespaces are not allowed here")
    done = subprocess.run([*run, sys.executable, "-c", IN_A_MOUNT, str(tmp_path / "disk")], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    listed = [["first", "lost+found", "manifest.json", "seconds.json"]]
    listed.append(["lost+found", "manifest.json", "second", "seconds.json"])
    assert done.stdout.decode().splitlines() == [str(names) for names in listed]
