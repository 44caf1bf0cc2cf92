"""Building a stage with all processes: the first one writes, the others help to train and wait for the rest."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from uqabench.artifact import Artifact, Stage, open_artifact
from uqabench.errors import InputError, RunError, UQABenchError, as_uqabench_error
from uqabench.stages.distributed.processes import SILENT_SECONDS, LostProcess, Processes, is_lost, lost, processes


def build_together(stage: Stage | Any, path: Path) -> tuple[Artifact, bool]:
    """`stage.build(path)`, of which every process gets the same result or the same error.

    The first process decides whether the artefact can be reused and writes it. Where the stage says `together`, all
    processes compute it; what the others write goes to a folder of their own that is thrown away. `path` must be on a
    disk that all processes see. LostProcess when another process ends.
    """
    group = processes()
    if not group.are_several or not isinstance(stage, Stage):
        return stage.build(path)
    turn = group.next_turn()
    return _as_first(group, turn, stage, path) if group.is_first else _as_helper(group, turn, stage, path)


def _as_first(group: Processes, turn: int, stage: Stage, path: Path) -> tuple[Artifact, bool]:
    is_shared = False

    def make(out: Path, work: Path) -> float:
        nonlocal is_shared
        if stage.together:
            is_shared = True
            group.say(f"make/{turn}", json.dumps({"work": str(work), "key": stage.key}))
        return stage.make(out, work)

    try:
        artifact, reused = replace(stage, make=make).build(path)
    except Exception as error:
        if is_lost(error):
            raise error if isinstance(error, LostProcess) else lost() from error
        known = as_uqabench_error(error)
        group.say(f"end/{turn}", json.dumps({"error": str(known), "exit_code": known.exit_code}))
        for helper in range(1, group.world) if is_shared else ():
            # A helper that does not answer waits inside an operation that this process has left.
            group.wait(f"left/{turn}/{helper}", seconds=SILENT_SECONDS)
        raise
    group.say(f"end/{turn}", json.dumps({"reused": reused}))
    return artifact, reused


def _as_helper(group: Processes, turn: int, stage: Stage, path: Path) -> tuple[Artifact, bool]:
    key, text = group.wait(f"end/{turn}", f"make/{turn}")
    if key.startswith("make"):
        text = _help(group, turn, stage, json.loads(text))
    end = json.loads(text)
    if "error" in end:
        raise (InputError if end["exit_code"] == InputError.exit_code else RunError)(end["error"])
    return open_artifact(path, stage.name), end["reused"]


def _help(group: Processes, turn: int, stage: Stage, said: dict[str, str]) -> str:
    """Compute the stage with the others; returns how it ended, as the first process says."""
    if said["key"] != stage.key:
        raise RunError(f"Process {group.rank} has other settings or data than process 0: give all the same command.")
    failure = _try(stage, Path(said["work"]))
    group.say(f"left/{turn}/{group.rank}", "")
    if failure is None:
        return group.wait(f"end/{turn}")[1]
    # What is wrong for all, such as a loss that is no number, the first process says as well, and the run goes on.
    try:
        end = group.wait(f"end/{turn}", seconds=SILENT_SECONDS)[1]
    except LostProcess:
        raise failure from None
    if "error" not in json.loads(end):
        raise failure
    return end


def _try(stage: Stage, work: Path) -> UQABenchError | None:
    with tempfile.TemporaryDirectory(prefix="uqabench-") as scratch:
        try:
            stage.make(Path(scratch), work)
        except Exception as error:
            if is_lost(error):
                raise error if isinstance(error, LostProcess) else lost() from error
            return as_uqabench_error(error)
    return None
