"""Stage folders: reuse, rebuilding, and what is said when files are not as they were written."""

from __future__ import annotations

import errno
import json

import pytest

from uqabench.artifact import build, open_artifact, stage_key
from uqabench.errors import InputError, RunError
from uqabench.files import read_json


class Maker:
    """Writes one file and counts how often it was asked to."""

    def __init__(self, text="result"):
        self.text, self.calls, self.seen_work = text, 0, []

    def __call__(self, out, work):
        self.calls += 1
        self.seen_work.append(sorted(path.name for path in work.iterdir()))
        (out / "weights").mkdir()
        (out / "weights" / "a.bin").write_text(self.text)
        (out / "log.jsonl").write_text(f"call {self.calls}")
        return 1.5


def make(path, maker, config=None, inputs=None):
    return build(path, "stage", config or {"lr": 1}, inputs or {"data": "d"}, maker)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_same_key_is_reused(tmp_path):
    maker = Maker()
    first, reused = make(tmp_path / "x", maker)
    assert not reused and first.seconds == 1.5
    again, reused = make(tmp_path / "x", maker)
    assert reused and maker.calls == 1
    assert again.manifest == first.manifest and again.content == first.content
    assert names(tmp_path) == ["x"]
    assert names(tmp_path / "x") == ["log.jsonl", "manifest.json", "seconds.json", "weights"]
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("change", [{"config": {"lr": 2}}, {"inputs": {"data": "e"}}, {"inputs": {"other": "d"}}])
def test_another_key_is_built_anew(tmp_path, change):
    maker = Maker()
    make(tmp_path / "x", maker)
    maker.text = "other"
    artifact, reused = make(tmp_path / "x", maker, **change)
    assert not reused and maker.calls == 2
    assert (tmp_path / "x" / "weights" / "a.bin").read_text() == "other"
    assert open_artifact(tmp_path / "x").manifest == artifact.manifest
    assert names(tmp_path) == ["x"]


def test_the_key_is_of_values_not_of_their_order():
    assert stage_key("s", {"a": 1, "b": 2}, {}) == stage_key("s", {"b": 2, "a": 1}, {})
    keys = {stage_key(*key) for key in [("s", {}, {}), ("t", {}, {}), ("s", {"a": 1}, {}), ("s", {}, {"a": 1})]}
    assert len(keys) == 4


def test_the_content_hash_is_of_what_later_stages_read(tmp_path):
    """Not of logs and clock readings, which differ between equal runs."""
    maker = Maker()
    first, _ = make(tmp_path / "x", maker)
    second, _ = make(tmp_path / "y", maker)  # its log says "call 2"
    assert first.content == second.content and first.manifest["files"] != second.manifest["files"]
    maker.text = "other"
    assert make(tmp_path / "z", maker)[0].content != first.content


@pytest.mark.parametrize("damage", ["change", "truncate", "remove"])
def test_a_damaged_file_of_a_finished_artefact_is_named(tmp_path, damage):
    make(tmp_path / "x", Maker())
    file = tmp_path / "x" / "weights" / "a.bin"
    if damage == "remove":
        file.unlink()
    else:
        file.write_text("resulT" if damage == "change" else "resul")
    with pytest.raises(InputError) as error:
        make(tmp_path / "x", Maker())
    assert str(error.value).startswith(f"{file} is missing or changed") and "delete" in str(error.value)


@pytest.mark.parametrize("text", ["{", "", "\xff"])
def test_a_broken_manifest_is_named(tmp_path, text):
    make(tmp_path / "x", Maker())
    (tmp_path / "x" / "manifest.json").write_bytes(text.encode("latin1"))
    with pytest.raises(InputError, match=r"manifest\.json is not readable JSON"):
        make(tmp_path / "x", Maker())


@pytest.mark.parametrize("manifest", [[], {"format": 0}, {"format": 1}, 7])
def test_an_artefact_of_another_version(tmp_path, manifest):
    """Opening says so; building takes its place."""
    make(tmp_path / "x", Maker())
    (tmp_path / "x" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="x was written by another version of uqabench: delete it"):
        open_artifact(tmp_path / "x")
    _, reused = make(tmp_path / "x", Maker("new"))
    assert not reused and (tmp_path / "x" / "weights" / "a.bin").read_text() == "new"


def test_another_stage_is_named(tmp_path):
    make(tmp_path / "x", Maker())
    with pytest.raises(InputError, match="holds the stage 'stage', not 'align'"):
        open_artifact(tmp_path / "x", "align")
    with pytest.raises(InputError, match="nothing.manifest.json does not exist: run the stage"):
        open_artifact(tmp_path / "nothing")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"Cannot write .*choose a folder that you may write to"):
        make(tmp_path / "file" / "x", Maker())


class Failing(Maker):
    def __init__(self, error, checkpoint=False):
        super().__init__()
        self.error, self.checkpoint = error, checkpoint

    def __call__(self, out, work):
        super().__call__(out, work)
        if self.checkpoint:
            (work / "checkpoint.pt").write_text("state")
        raise self.error


def test_a_failed_build_leaves_nothing(tmp_path):
    with pytest.raises(RunError, match="diverged"):
        make(tmp_path / "x", Failing(RunError("diverged")))
    assert names(tmp_path) == []


def test_a_failed_build_leaves_the_finished_one(tmp_path):
    make(tmp_path / "x", Maker("old"))
    with pytest.raises(RunError):
        make(tmp_path / "x", Failing(RunError("diverged")), config={"lr": 9})
    assert names(tmp_path) == ["x"] and open_artifact(tmp_path / "x")
    assert (tmp_path / "x" / "weights" / "a.bin").read_text() == "old"


def test_checkpoints_survive_for_the_same_key_only(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "x", Failing(KeyboardInterrupt(), checkpoint=True))
    assert names(tmp_path) == ["x.work"]
    again = Maker()
    make(tmp_path / "x", again)
    assert again.seen_work == [["checkpoint.pt", "key.json"]] and names(tmp_path) == ["x"]

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "y", Failing(KeyboardInterrupt(), checkpoint=True))
    other = Maker()
    make(tmp_path / "y", other, config={"lr": 2})
    assert other.seen_work == [["key.json"]]


def test_what_killed_writers_left_is_swept(tmp_path):
    """A kill may fall between the renames, or between the last rename and the removal of the checkpoints."""
    for name in (".x.partial-abc", ".x.old-def"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_text("")
    make(tmp_path / "x", Maker())
    assert names(tmp_path) == ["x"]
    (tmp_path / "x.work").mkdir()
    (tmp_path / "x.work" / "checkpoint.pt").write_text("state")
    (tmp_path / ".x.old-ghi").mkdir()
    _, reused = make(tmp_path / "x", Maker())
    assert reused and names(tmp_path) == ["x"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        Exception("I/O error: No space left on device (os error 28)"),  # what safetensors and tokenizers raise
    ],
)
def test_a_full_disk_is_said_whoever_noticed_it(tmp_path, error):
    with pytest.raises(RunError, match=r"The disk is full while writing .*x: free some space"):
        make(tmp_path / "x", Failing(error))
    assert names(tmp_path) == []


def test_a_missing_input_is_not_an_unwritable_output(tmp_path):
    with pytest.raises(InputError, match="weights.npy") as error:
        make(tmp_path / "x", Failing(FileNotFoundError(errno.ENOENT, "No such file or directory", "weights.npy")))
    assert "Cannot write" not in str(error.value)


def test_the_manifest_says_how_it_was_made(tmp_path):
    make(tmp_path / "x", Maker(), config={"lr": 3}, inputs={"data": "h"})
    manifest = read_json(tmp_path / "x" / "manifest.json")
    assert manifest["config"] == {"lr": 3} and manifest["inputs"] == {"data": "h"} and manifest["stage"] == "stage"
    assert {"python", "uqabench", "torch", "numpy"} <= set(manifest["versions"])


@pytest.mark.parametrize("change", [{"files": {}}, {"content": "0" * 64}, {"content": None}, {"stage": None}])
def test_a_manifest_that_does_not_fit_its_files_is_refused(tmp_path, change):
    """No files to check, or the content hash of other files, would let later stages reuse what was made from these."""
    make(tmp_path / "x", Maker())
    path = tmp_path / "x" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match="manifest.json"):
        make(tmp_path / "x", Maker())
