"""The processes of one run: their numbers, the messages between them, and what happens when one of them ends.

torch is imported where there are several: commands that claim a run folder without computing start without it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from uqabench.errors import InputError, RunError

if TYPE_CHECKING:
    from torch.distributed import Store

SILENT_SECONDS = 40.0
"""After so many seconds without a sign of life a process counts as lost: the others end within a minute."""
_BEAT_SECONDS = 1.0
_LATE_SECONDS = 2.0
"""The most that counts between two looks: a machine too busy to let this process look keeps the others from giving
signs of life, too."""
_GRACE_SECONDS = 5.0  # for the main thread to end by itself, which removes what it has half written
_JOIN = timedelta(minutes=5)
_GO_ON = "the same command goes on from the last checkpoint"


class LostProcess(RunError):
    """Another process of the run ended, or cannot be reached: no node can be built any more."""


@dataclass
class Processes:
    """This process among those of the run.

    rank: its number, from 0. world: how many there are. store: what they leave each other messages in; None where
    there is one process only.
    """

    rank: int = 0
    world: int = 1
    store: Store | None = None
    _watcher: _Watcher | None = field(default=None, repr=False)
    _turns: int = field(default=0, repr=False)

    @property
    def is_first(self) -> bool:
        """Whether this process writes: artefacts, results and messages."""
        return self.rank == 0

    @property
    def are_several(self) -> bool:
        return self.world > 1

    def next_turn(self) -> int:
        """A number that every process gets for the same node, since all go through the same plan."""
        self._turns += 1
        return self._turns

    def say(self, key: str, text: str) -> None:
        """Leave a message for the others."""
        with _as_lost():
            self.store.set(key, text)

    def claim(self, key: str) -> bool:
        """Whether this process is the first that claims `key`."""
        with _as_lost():
            return self.store.compare_set(key, "", str(self.rank)).decode() == str(self.rank)

    def heard(self, key: str) -> str | None:
        """The message `key` if it has been left."""
        with _as_lost():
            return self.store.get(key).decode() if self.store.check([key]) else None

    def wait(self, *keys: str, seconds: float | None = None) -> tuple[str, str]:
        """The first of these messages that is left, as (key, text); LostProcess when a process ends before, or after
        `seconds`, of which those do not count in which this process could not look."""
        clock, waited, pause = _LookClock(), 0.0, 0.01
        while True:
            for key in keys:
                text = self.heard(key)
                if text is not None:
                    return key, text
            if self._watcher is not None and self._watcher.lost:
                raise LostProcess(self._watcher.lost)
            waited += clock.passed()
            if seconds is not None and waited > seconds:
                raise LostProcess(f"Another process of this run does not answer: {_GO_ON}.")
            time.sleep(pause)
            pause = min(2 * pause, 0.2)


class _LookClock:
    """Seconds between looks at what others say, at most `_LATE_SECONDS` for each."""

    def __init__(self) -> None:
        self._looked = time.monotonic()

    def passed(self) -> float:
        """Since the last call."""
        before, self._looked = self._looked, time.monotonic()
        return min(self._looked - before, _LATE_SECONDS)


_current = Processes()


def processes() -> Processes:
    """Those of this run; one, where no `joined()` block is open."""
    return _current


@contextmanager
def joined() -> Iterator[Processes]:
    """Within the block, the processes that torchrun started are one group; without torchrun it is this one alone.

    A process that ends early takes the others with it: each raises LostProcess, or prints its sentence and exits, a
    minute later at most.
    """
    global _current
    world = _number("WORLD_SIZE", 1)
    if world == 1 or _current.are_several:
        yield _current
        return
    before, handler = _current, signal.getsignal(signal.SIGTERM)
    group = _current = _join(_number("RANK", 0), world)
    logger = logging.getLogger("uqabench")
    was_disabled = logger.disabled
    logger.disabled = was_disabled or not group.is_first
    _on_terminate()
    from uqabench.stages.distributed.tuning import choosing_together

    try:
        with choosing_together(group):
            yield group
        _leave(group)
    except BaseException as error:
        with suppress(LostProcess):
            group.say("abort", _reason(group, error))
        group._watcher.stop()  # Python cannot end a thread that waits for the store: it would abort this process
        raise
    finally:
        _current, logger.disabled = before, was_disabled
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def is_lost(error: BaseException) -> bool:
    """Whether an error of torch says that another process could not be reached."""
    if isinstance(error, LostProcess):
        return True
    if "torch" in sys.modules:
        import torch.distributed as dist

        if isinstance(error, (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)):
            return True
    return isinstance(error, RuntimeError) and "gloo" in str(error)


def lost() -> LostProcess:
    """What a process says when a message to another one fails."""
    return LostProcess(f"Another process of this run ended or cannot be reached: {_GO_ON}.")


def _join(rank: int, world: int) -> Processes:
    import torch
    import torch.distributed as dist

    if not dist.is_available():
        raise InputError("This build of torch has no torch.distributed: run one process, without torchrun.")
    host, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), _number("MASTER_PORT", 29_500)
    hosts_store = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        first = dist.TCPStore(host, port, world, hosts_store, timeout=_JOIN, wait_for_workers=False, multi_tenant=True)
        second = dist.TCPStore(host, port, world, False, timeout=_JOIN, wait_for_workers=False)
        name = f"uqabench/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        store, own = dist.PrefixStore(name, first), dist.PrefixStore(name, second)
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(_number("LOCAL_RANK", 0))  # what the settings call `cuda` is this process's own GPU
            backend = "cpu:gloo,cuda:nccl"
        if not dist.is_initialized():
            dist.init_process_group(backend, store=dist.PrefixStore("group", store), rank=rank, world_size=world)
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        raise RunError(
            f"Process {rank} of {world} cannot join the others ({reason}): start all with torchrun."
        ) from error
    watcher = _Watcher(own, rank, world)
    watcher.start()
    return Processes(rank, world, store, watcher)


def _leave(group: Processes) -> None:
    """Wait until everybody is done. The first process, which may hold the messages, stays until the others have read
    that, and need no message any more."""
    import torch.distributed as dist

    group.say(f"done/{group.rank}", "")
    for rank in range(group.world):
        group.wait(f"done/{rank}")
    group._watcher.stop()
    if group.is_first:
        for rank in range(1, group.world):
            group.wait(f"gone/{rank}", seconds=SILENT_SECONDS)
    else:
        with suppress(LostProcess):
            group.say(f"gone/{group.rank}", "")
    dist.destroy_process_group()


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdigit():
        raise InputError(
            f"The environment variable {name} is '{text}' and must be a whole number: start with torchrun."
        )
    return int(text)


def _reason(group: Processes, error: BaseException) -> str:
    text = str(error) if isinstance(error, RunError | InputError) else type(error).__name__
    return text if isinstance(error, LostProcess) else f"Process {group.rank} of this run ended ({text}): {_GO_ON}."


def _on_terminate() -> None:
    """torchrun sends SIGTERM to the others when one process ends: they say why they stop."""

    def stop(number: int, frame: Any) -> None:
        raise LostProcess(f"This process was told to stop, as it is when another one of the run ended: {_GO_ON}.")

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


@contextmanager
def _as_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise lost() from error


class _Watcher(threading.Thread):
    """Gives signs of life, and ends this process when another one gives none: its main thread may wait for ever in a
    collective operation that the lost process does not take part in."""

    def __init__(self, store: Store, rank: int, world: int) -> None:
        super().__init__(daemon=True, name="uqabench-watcher")
        self.store, self.rank = store, rank
        self.seen = {other: ("", 0.0) for other in range(world) if other != rank}  # last sign, seconds without another
        self._clock = _LookClock()
        self.lost = ""
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()
        self.join(10 * _BEAT_SECONDS)

    def run(self) -> None:
        beats = 0
        while not self._stopped.wait(_BEAT_SECONDS):
            beats += 1
            try:
                self._look(beats)
            except RuntimeError:
                self.lost = self.lost or str(lost())
            if self.lost and not self._stopped.wait(_GRACE_SECONDS):
                print(f"uqabench: {self.lost}", file=sys.stderr, flush=True)
                os._exit(1)

    def _look(self, beats: int) -> None:
        self.store.set(f"beat/{self.rank}", str(beats))
        if self.store.check(["abort"]):
            self.lost = self.store.get("abort").decode()
        passed = self._clock.passed()
        for other, (text, silent) in self.seen.items():
            key = f"beat/{other}"
            found = self.store.get(key).decode() if self.store.check([key]) else ""
            self.seen[other] = (found, silent + passed if found == text else 0.0)
            if self.seen[other][1] > SILENT_SECONDS and not self.store.check([f"done/{other}"]):
                self.lost = f"Process {other} of this run gives no sign of life any more: {_GO_ON}."
