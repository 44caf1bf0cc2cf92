"""Checkpoints that cost a training run next to nothing: when one is due, how the state leaves the device, who writes.

On a CPU the state is written where it lies, before training goes on. On a GPU it is copied to pinned memory behind the
work that was given to the device, which neither waits for the host nor the host for it; a thread waits for the copy and
writes the file. The next checkpoint is due after the last one is written, and after so much training that copying it
took at most `BUDGET` of the time.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uqabench.files import write_aside, write_bytes

logger = logging.getLogger(__name__)

SHARDS, SHARDS_FACTS = "shards-", "trainer.json"
"""A checkpoint of several processes: a folder called by its step, and the file in it that is written last."""

BUDGET = 0.02
"""The share of training time that checkpoints may take."""


class CheckpointWriter:
    """Writes a run's checkpoint file, and the log beside it.

    interval: least seconds between the end of one save and the next; 0: after each step, whatever it takes.
    in_thread: whether the file is written by a thread, from a copy.
    """

    def __init__(self, path: Path, interval: float, *, in_thread: bool) -> None:
        self.path, self.interval, self.in_thread = path, interval, in_thread
        self.saved, self.seconds = 0, 0.0  # checkpoints, and how long training stood still for them
        self._pause = interval
        self._ended = time.monotonic()
        self._pinned: dict[str, Tensor] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None

    def start(self) -> None:
        """The clock of the next checkpoint begins now: training does."""
        self._ended = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next one, and the last one is written."""
        if self._writing is not None:
            if not self._writing.done():
                return False
            self.wait()
        return time.monotonic() - self._ended >= self._pause

    def save(self, state: dict[str, Any], log: bytes) -> None:
        """Write a state (nested dictionaries and lists of tensors and plain values), at the latest by `wait`."""
        self.wait()
        with self.standing_still():
            if self.in_thread:
                copy, arrived = self._copied(state)
                self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="uqabench-checkpoint")
                self._writing = self._thread.submit(self._write, copy, log, arrived)
            else:
                self._write(state, log, lambda: None)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Within the block training stands still for a checkpoint: the time counts, and the next one is due later."""
        began = time.monotonic()
        yield
        self._ended = time.monotonic()
        self.saved += 1
        self.seconds += self._ended - began
        if self.interval:
            self._pause = max(self.interval, (self._ended - began) * (1 - BUDGET) / BUDGET)

    def wait(self) -> None:
        """Until what was saved is on the disk. Raises what its writing raised."""
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        writing.result()
        self._ended = time.monotonic()

    def close(self, trained: float) -> None:
        """`wait`, and tell what the checkpoints of `trained` seconds took."""
        try:
            self.wait()
        finally:
            if self._thread is not None:
                self._thread.shutdown()
                self._thread = None
        share = self.seconds / trained if trained > 0 else 0.0
        if self.saved:
            tell = logger.info if share > BUDGET and self.interval and self.saved > 1 else logger.debug
            tell(f"{self.saved} checkpoints took {self.seconds:.2f} of {trained:.1f} s of training ({share:.1%})")

    def _write(self, state: dict[str, Any], log: bytes, arrived: Callable[[], None]) -> None:
        arrived()
        write_aside(self.path, lambda partial: _save(state, partial))
        write_bytes(self.path.with_name("log.jsonl"), log)
        for older in self.path.parent.glob(f"{SHARDS}*"):
            shutil.rmtree(older, ignore_errors=True)

    def _copied(self, state: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], None]]:
        """The state as it is behind the work given to the device so far, and what waits until it is there.

        Tensors of the device go to pinned memory, which later saves use again; those of the host are cloned.
        """
        devices = set()

        def copy(value: Any, name: str) -> Any:
            if isinstance(value, dict):
                return {key: copy(part, f"{name}/{key}") for key, part in value.items()}
            if isinstance(value, (list, tuple)):
                return type(value)([copy(part, f"{name}/{i}") for i, part in enumerate(value)])
            if not isinstance(value, Tensor):
                return value
            if value.device.type == "cpu":
                return value.detach().clone()
            devices.add(value.device)
            return self._pinned_like(value, name).copy_(value.detach(), non_blocking=True)

        copied = copy(state, "")
        events = [torch.cuda.current_stream(device).record_event() for device in devices]
        return copied, lambda: [event.synchronize() for event in events] and None

    def _pinned_like(self, x: Tensor, name: str) -> Tensor:
        kept = self._pinned.get(name)
        if kept is None or kept.shape != x.shape or kept.dtype != x.dtype:
            kept = self._pinned[name] = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
        return kept


def finished_shards(work: Path) -> list[Path]:
    """Checkpoints of several processes in a working folder, the newest last."""
    found = [folder for folder in work.glob(f"{SHARDS}*") if (folder / SHARDS_FACTS).is_file()]
    return sorted(found, key=lambda folder: int(folder.name.removeprefix(SHARDS)))


def _save(state: dict[str, Any], path: Path) -> None:
    with open(path, "wb") as file:  # Python's, which says why it cannot write
        torch.save(state, file)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of the random generators that training on `device` draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Undo of `random_state`; a checkpoint of another kind of device leaves the GPU's generator as it is seeded."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
