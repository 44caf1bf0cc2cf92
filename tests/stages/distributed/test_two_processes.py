"""Pre-training by two processes in seconds; longer runs and alignment are among the slow tests."""

from __future__ import annotations

from tests.stages.distributed.jobs import Job, Jobs, run
from tests.stages.distributed.running import pretraining, run_several, same

FEW = 5


def test_two_processes_pretrain_as_one(small_store, tmp_path):
    """The same losses and weights for each objective. What processes compute together, and how they choose a kernel's
    configuration, is compared first; that one is late in the end disturbs nobody."""
    jobs = [Job(objective, pretraining("gru4rec", objective, epochs=FEW)) for objective in ("sl", "cl")]
    run_several(Jobs(small_store.path, jobs, checks_operators=True, lingers=0.3), tmp_path / "two")
    run(Jobs(small_store.path, jobs), tmp_path / "one")
    for job in jobs:
        same(tmp_path / "one" / job.name, tmp_path / "two" / job.name, ["model.safetensors"], steps=FEW)
