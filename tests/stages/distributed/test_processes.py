"""A process counts as lost after so long without a sign of life, unless it is this one that could not look."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from uqabench.stages.distributed.processes import SILENT_SECONDS, LostProcess, Processes

processes = import_module("uqabench.stages.distributed.processes")


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time that the processes read, and may sleep through; the test moves it."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    return now


@pytest.fixture
def store(clock):
    return dist.HashStore()


def looked(watcher, clock, seconds, looks):
    """The watcher after so many looks, `seconds` apart."""
    for beats in range(looks):
        clock[0] += seconds
        watcher._look(beats)
    return watcher.lost


def test_a_silent_process_is_lost_after_its_time(store, clock):
    watcher = processes._Watcher(store, rank=0, world=3)
    for beats in range(2 * int(SILENT_SECONDS)):
        store.set("beat/2", str(beats))
        if lost := looked(watcher, clock, 1.0, 1):
            break
    assert lost.startswith("Process 1 of this run gives no sign of life") and SILENT_SECONDS < clock[0] < 45


def test_a_process_that_could_not_look_does_not_give_up_the_others(store, clock):
    watcher = processes._Watcher(store, rank=0, world=2)
    assert not looked(watcher, clock, 10 * SILENT_SECONDS, 5)
    assert looked(watcher, clock, 1.0, 45)


def test_a_process_that_is_done_is_not_lost(store, clock):
    watcher = processes._Watcher(store, rank=0, world=2)
    store.set("done/1", "")
    assert not looked(watcher, clock, 1.0, 100)


def test_a_message_is_waited_for_so_long(store, clock):
    group = Processes(0, 2, store)
    store.set("said", "yes")
    assert group.wait("never", "said") == ("said", "yes")
    with pytest.raises(LostProcess, match="does not answer"):
        group.wait("never", seconds=7.0)
    assert 7.0 < clock[0] < 8.0
