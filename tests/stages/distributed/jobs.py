"""What a process of these tests does: stages of a small run, described by a file that the tests write.

python -m tests.stages.distributed.jobs JOBS OUT
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.stages.distributed import operators
from uqabench.artifact import Stage
from uqabench.data.store import InteractionStore
from uqabench.errors import UQABenchError
from uqabench.questions.templates import Templates
from uqabench.settings import AlignConfig, PretrainConfig, PromptConfig
from uqabench.stages.align import Context, PromptedMethod, align
from uqabench.stages.distributed import build_together, joined
from uqabench.stages.pretrain import pretrain
from uqabench.stages.states import FrozenStates
from uqabench.stages.training import Trainer


@dataclass(frozen=True)
class Job:
    """One stage. kill: (rank, step) of a process that is killed before that step."""

    name: str
    config: PretrainConfig | AlignConfig
    n_text: int = 0
    kill: tuple[int, int] | None = None


@dataclass(frozen=True)
class Jobs:
    """Stages over the same data. states: the artefact of an encoder's frozen states. checks_operators: before them,
    what several processes compute together is compared with one process's operators."""

    store: Path
    jobs: list[Job]
    asked: tuple[Any, Any] | None = None
    model: Path | None = None
    states: Any = None
    checks_operators: bool = False

    def stage(self, job: Job) -> Stage:
        store = InteractionStore.open(self.store)
        if isinstance(job.config, PretrainConfig):
            return pretrain(store, job.config, progress=False)
        context = Context(store, *self.asked, Templates.load(), PromptConfig(), str(self.model), inputs={"data": "x"})
        states = None if job.n_text else FrozenStates.open(self.states)
        return align(context, PromptedMethod(job.name, job.n_text, states), job.config, progress=False)


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
    with joined() as group:
        if jobs.checks_operators and group.are_several:
            operators.check()
        for job in jobs.jobs:
            if job.kill is not None:
                kill_before(*job.kill)
            build_together(jobs.stage(job), out / job.name)


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
