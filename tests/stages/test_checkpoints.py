"""The checkpoint file: what a thread writes, when the next is due, and which random states it holds."""

from __future__ import annotations

import threading

import pytest
import torch

from uqabench.errors import RunError
from uqabench.stages import checkpoints
from uqabench.stages.checkpoints import CheckpointWriter, random_state, restore_random_state


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """A writer whose thread waits for `slow.go` before it writes."""
    writer = CheckpointWriter(tmp_path / "checkpoint.pt", 0.0, in_thread=True)
    writer.go = threading.Event()
    stream = checkpoints.write_aside

    def write(path, fill):
        assert writer.go.wait(10)
        stream(path, fill)

    monkeypatch.setattr(checkpoints, "write_aside", write)
    yield writer
    writer.go.set()
    writer.close(1.0)


def test_a_thread_writes_what_was_there_when_it_was_told_to(slow):
    weights, moments = torch.arange(4.0), [torch.ones(2), 3]
    slow.save({"weights": weights, "more": {"moments": moments, "name": "a"}}, b"log")
    weights.add_(1), moments[0].zero_()  # training goes on
    assert not slow.path.exists() and not slow.is_due  # one at a time
    slow.go.set()
    slow.wait()
    found = torch.load(slow.path, weights_only=True)
    assert found["weights"].tolist() == [0, 1, 2, 3] and found["more"]["moments"][0].tolist() == [1, 1]
    assert found["more"]["name"] == "a" and slow.path.with_name("log.jsonl").read_bytes() == b"log"
    assert slow.is_due and slow.saved == 1


def test_until_it_is_written_the_last_one_stands(slow):
    slow.go.set()
    slow.save({"step": 1}, b"")
    slow.wait()
    slow.go.clear()
    slow.save({"step": 2}, b"")
    assert torch.load(slow.path, weights_only=True) == {"step": 1}
    slow.go.set()
    slow.wait()
    assert torch.load(slow.path, weights_only=True) == {"step": 2}


def test_what_the_writing_raises_reaches_the_training(tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", lambda state, file: full(file))
    writer = CheckpointWriter(tmp_path / "checkpoint.pt", 0.0, in_thread=True)
    writer.save({}, b"")
    with pytest.raises(RunError, match="The disk is full while writing"):
        writer.close(1.0)
    assert list(tmp_path.iterdir()) == []


def test_the_random_states_of_the_device_are_kept(monkeypatch):
    """With fakes of the GPU's generator."""
    gpu, states = torch.device("cuda", 1), {}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.tensor([device.index], dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({device: state.tolist()}))
    torch.manual_seed(3)
    state = random_state(gpu)
    first = torch.rand(3)
    torch.manual_seed(4)
    restore_random_state(state, gpu)
    assert torch.equal(torch.rand(3), first) and states == {gpu: [1]}
    states.clear()
    restore_random_state(random_state(torch.device("cpu")), gpu)  # trained on a CPU so far
    assert states == {} and set(random_state(torch.device("cpu"))) == {"cpu"}
