"""Training curves: what TensorBoard reads back, and what a disk without space leaves."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from uqabench.errors import RunError
from uqabench.stages.tensorboard import write_tensorboard

pytest.importorskip("tensorboard")

RECORDS = [{"step": 20, "train_loss": 1.5, "lr": 0.1}, {"epoch": 1, "step": 40, "loss": 2.5, "x": {}}]


def test_tensorboard_reads_the_same_scalars(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # the second time in place of the first
        write_tensorboard(tmp_path / "tensorboard", RECORDS)
    assert [path.name for path in tmp_path.iterdir()] == ["tensorboard"]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert sorted(events.Tags()["scalars"]) == ["loss", "lr", "train_loss"]
    assert [(e.step, e.value) for e in events.Scalars("train_loss")] == [(20, 1.5)]
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(40, 2.5)]


def test_a_full_disk_is_one_sentence_and_nothing_is_left(tmp_path: Path, monkeypatch, capfd):
    """The writes of the library's own thread fail, as those of the thread that closes the file do."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    threads = threading.excepthook
    for method in ("write", "flush"):
        with monkeypatch.context() as patch:
            patch.setattr(RecordWriter, method, full)
            with pytest.raises(RunError, match="The disk is full while writing .*tensorboard: free some space"):
                write_tensorboard(tmp_path / "tensorboard", RECORDS)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert threading.excepthook is threads
