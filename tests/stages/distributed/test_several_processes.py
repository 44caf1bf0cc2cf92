"""Two processes on the CPU compute what one computes, and end with a sentence when one of them is killed."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from tests.stages.distributed.jobs import Job, Jobs, run
from tests.stages.distributed.running import STEPS, alignment, finish, losses, pretraining, run_several, same, start
from uqabench.integrations import find_integration
from uqabench.stages.states import HistoryPairs, encode_histories


@pytest.fixture(scope="session")
def prompts(small_store, small_train, small_evaluation, pretrained, model_folder, tmp_path_factory) -> Jobs:
    """What alignment needs, without jobs."""
    integration = find_integration("mean-pooling")
    pairs = HistoryPairs.of([small_train, small_evaluation])
    encoded = encode_histories(
        small_store, pretrained["sl"], pairs, integration=integration, token_budget=999, progress=False
    )
    states, _ = encoded.build(tmp_path_factory.mktemp("states") / "states")
    return Jobs(small_store.path, [], (small_train, small_evaluation), model_folder, states)


JOBS = [
    (Job("sl", pretraining("trm++", "sl")), ["model.safetensors"]),
    (Job("cl", pretraining("hstu", "cl")), ["model.safetensors"]),
    (Job("prompt", alignment(strategy="adapter")), ["adapter.safetensors"]),
    (Job("lora", alignment(strategy="lora")), ["adapter.safetensors", "lora/adapter_model.safetensors"]),
    (Job("full", alignment(strategy="full", recompute=True)), ["adapter.safetensors", "llm/model.safetensors"]),
    (Job("double", alignment(strategy="full"), double=True), ["adapter.safetensors", "llm/model.safetensors"]),
]
"""Stages, and the weights that each writes."""

FLOAT32, FLOAT64 = 2e-4, 1e-9
"""How far losses may be apart, relatively. AdamW divides a gradient by its own size, so rounding moves weights."""
WHOLE_IN_FLOAT32 = 2e-3
"""All weights of a language model are moved so, by 2e-6 to 3e-4 in two models of random weights. What this
lets pass, float64 finds."""


@pytest.mark.slow
def test_losses_are_those_of_one_process(prompts, tmp_path):
    """20 steps of each objective and strategy; before them, the operators by themselves."""
    jobs = replace(prompts, checks_operators=True, jobs=[job for job, _ in JOBS])
    run_several(jobs, tmp_path / "two")
    run(jobs, tmp_path / "one")
    for job, files in JOBS:
        name = job.name
        tolerance = WHOLE_IN_FLOAT32 if name == "full" else FLOAT64 if job.double else FLOAT32
        same(tmp_path / "one" / name, tmp_path / "two" / name, files, tolerance)
        one, two = (json.loads((tmp_path / k / name / "metrics.json").read_text()) for k in ("one", "two"))
        assert one.keys() == two.keys() and one["steps"] == two["steps"] == STEPS
        manifests = [json.loads((tmp_path / k / name / "manifest.json").read_text()) for k in ("one", "two")]
        assert manifests[0]["key"] == manifests[1]["key"] and not (tmp_path / "two" / f"{name}.work").exists()


PRETRAINING = pretraining("hstu", "sl", checkpoint_seconds=0.0)
WHOLE = alignment(strategy="full", checkpoint_seconds=0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "weights", "worlds"),
    [
        (Job("x", PRETRAINING), "model.safetensors", (3, 1)),
        (Job("x", WHOLE, double=True), "llm/model.safetensors", (1, 2)),
        (Job("x", WHOLE, double=True), "llm/model.safetensors", (3, 1)),
    ],
    ids=["pretraining", "whole-model-1-2", "whole-model-3-1"],
)
def test_a_killed_process_ends_the_others_and_the_run_goes_on_from_there(prompts, tmp_path, job, weights, worlds):
    """Two processes, one of them killed before step 12 with a checkpoint every step; other numbers of processes go on,
    of which the first ones are killed before step 15."""
    run(replace(prompts, jobs=[job]), tmp_path / "whole")
    folder = tmp_path / "killed"
    started = start(replace(prompts, jobs=[replace(job, kill=(1, 12))]), folder)
    assert started[1].wait(500) == -9
    begun = time.monotonic()
    errors = finish(started)
    assert started[0].returncode == 1 and time.monotonic() - begun < 60
    assert "the same command goes on from the last checkpoint" in errors[0] and "Traceback" not in errors[0]
    assert not (folder / "x").exists() and (folder / "x.work").exists()
    started = start(replace(prompts, jobs=[replace(job, kill=(0, 15))]), folder, world=worlds[0])
    errors = finish(started)
    assert started[0].returncode == -9, errors
    run_several(replace(prompts, jobs=[job]), folder, world=worlds[1])
    tolerance = FLOAT64 if job.double else FLOAT32
    assert losses(folder / "x")[:12] == pytest.approx(losses(tmp_path / "whole" / "x")[:12], rel=tolerance)
    same(tmp_path / "whole" / "x", folder / "x", [weights], tolerance)


@pytest.mark.slow
def test_what_is_wrong_for_all_is_said_by_all_and_none_crashes(small_store, tmp_path):
    config = pretraining("gru4rec", "sl")
    diverging = replace(config, optim=replace(config.optim, lr=1e3, weight_decay=100.0))
    started = start(Jobs(small_store.path, [Job("x", diverging)]), tmp_path)
    errors = finish(started)
    assert [process.returncode for process in started] == [1, 1], errors
    for text in errors:
        assert "became" in text and "lower lr" in text and "Traceback" not in text and "terminate" not in text
