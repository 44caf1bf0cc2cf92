"""What a process of these tests does: stages of a small run, described by a file that the tests write.

python -m tests.stages.distributed.jobs JOBS OUT
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.stages.distributed import operators, tuning
from uqabench.artifact import Stage
from uqabench.data.store import InteractionStore
from uqabench.errors import UQABenchError
from uqabench.llm.language_model import LanguageModel
from uqabench.questions.templates import Templates
from uqabench.settings import AlignConfig, PretrainConfig, PromptConfig
from uqabench.stages.align import Context, PromptedMethod, align
from uqabench.stages.distributed import Processes, build_together, joined
from uqabench.stages.pretrain import pretrain
from uqabench.stages.states import FrozenStates
from uqabench.stages.training import Trainer


@dataclass(frozen=True)
class Job:
    """One stage. kill: (rank, step) of a process that is killed before that step. double: in float64, where what two
    processes round differently is too small to be seen."""

    name: str
    config: PretrainConfig | AlignConfig
    n_text: int = 0
    kill: tuple[int, int] | None = None
    double: bool = False


class DoubleContext(Context):
    """Alignment in float64, which no setting offers."""

    def load_lm(self, folder: Path | None = None, dtype: str | None = None) -> LanguageModel:
        return super().load_lm(folder, "float64")


@dataclass(frozen=True)
class Jobs:
    """Stages over the same data. states: the artefact of an encoder's frozen states. checks_operators: before them,
    what several processes compute together is compared with one process's operators, and how they choose kernels.
    lingers: seconds that all but the first wait before they leave."""

    store: Path
    jobs: list[Job]
    asked: tuple[Any, Any] | None = None
    model: Path | None = None
    states: Any = None
    checks_operators: bool = False
    lingers: float = 0.0

    def stage(self, job: Job) -> Stage:
        store = InteractionStore.open(self.store)
        if isinstance(job.config, PretrainConfig):
            return pretrain(store, job.config, progress=False)
        kind = DoubleContext if job.double else Context
        context = kind(store, *self.asked, Templates.load(), PromptConfig(), str(self.model), inputs={"data": "x"})
        states = None if job.n_text else FrozenStates.open(self.states)
        if job.double:
            states = replace(states, pooled=states.pooled.astype(np.float64))
        return align(context, PromptedMethod(job.name, job.n_text, states), job.config, progress=False)


def linger(seconds: float) -> None:
    """Have this process wait after it has said that it is done, unless it is the first."""
    original = Processes.say

    def say(self: Processes, key: str, text: str) -> None:
        original(self, key, text)
        if key.startswith("done/") and not self.is_first:
            time.sleep(seconds)

    Processes.say = say


def kill_before(rank: int, step: int) -> None:
    """Have this process killed before that step, if it is that one: as the machine does, without a word."""
    original = Trainer._step

    def stepped(self: Trainer, batch: Any) -> Any:
        if self.step == step and int(os.environ.get("RANK", "0")) == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, batch)

    Trainer._step = stepped


def run(jobs: Jobs, out: Path) -> None:
    """Build every stage into `out`, with the other processes if there are any."""
    torch.set_num_threads(1)
    if jobs.lingers:
        linger(jobs.lingers)
    with joined() as group:
        if jobs.checks_operators and group.are_several:
            operators.check()
            tuning.check()
        for job in jobs.jobs:
            if job.kill is not None:
                kill_before(*job.kill)
            torch.set_default_dtype(torch.float64 if job.double else torch.float32)
            try:
                build_together(jobs.stage(job), out / job.name)
            finally:
                torch.set_default_dtype(torch.float32)


def main() -> int:
    jobs = pickle.loads(Path(sys.argv[1]).read_bytes())
    try:
        run(jobs, Path(sys.argv[2]))
    except UQABenchError as error:
        print(f"uqabench: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    from tests.stages.distributed import jobs as this_module  # what is pickled has the module's name

    sys.exit(this_module.main())
