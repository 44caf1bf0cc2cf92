"""Two processes on the CPU compute what one computes, and end with a sentence when one of them is killed."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.stages.distributed.jobs import Job, Jobs, run
from uqabench.encoders import UserEncoderConfig
from uqabench.integrations import find_integration
from uqabench.settings import AlignConfig, OptimConfig, PretrainConfig
from uqabench.stages.states import HistoryPairs, encode_histories

ROOT = Path(__file__).parents[3]
STEPS = 20


def start(jobs: Jobs, folder: Path, world: int = 2) -> list[subprocess.Popen]:
    """`world` processes over these jobs, as torchrun starts them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jobs.pickle").write_bytes(pickle.dumps(jobs))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(world):
        environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "PYTHONPATH": str(ROOT)}
        environment["TORCH_CPP_LOG_LEVEL"] = "ERROR"
        command = [sys.executable, "-m", "tests.stages.distributed.jobs", str(folder / "jobs.pickle"), str(folder)]
        started.append(subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True))
    return started


def finish(started: list[subprocess.Popen], seconds: float = 500.0) -> list[str]:
    """What every process wrote on standard error, once all have ended."""
    return [process.communicate(timeout=seconds)[1] for process in started]


def run_several(jobs: Jobs, folder: Path, world: int = 2) -> None:
    started = start(jobs, folder, world)
    errors = finish(started)
    assert [process.returncode for process in started] == [0] * world, "\n".join(errors)


def losses(folder: Path) -> list[float]:
    """Of every epoch, which are steps here."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def pretraining(encoder: str, objective: str, **changes) -> PretrainConfig:
    """One step an epoch, without dropout."""
    optim = OptimConfig(lr=5e-3, epochs=STEPS, checkpoint_seconds=changes.pop("checkpoint_seconds", 1e9))
    shape = UserEncoderConfig(encoder=encoder, preset="tiny", overrides={"dropout": 0.0})
    sizes = {"length": 24, "batch_size": 512, "token_budget": 8192}
    return PretrainConfig(encoder=shape, objective=objective, optim=optim, **{**sizes, **changes})


def alignment(**changes) -> AlignConfig:
    optim = OptimConfig(lr=5e-5, epochs=STEPS, checkpoint_seconds=changes.pop("checkpoint_seconds", 1e9))
    return AlignConfig(**{"batch_questions": 512, "token_budget": 1024, "lora_rank": 4, "optim": optim, **changes})


def same(one: Path, several: Path, weights: list[str], tolerance: float = 2e-4) -> None:
    """The losses of every step, the metrics and the weights at the end."""
    assert len(losses(one)) == STEPS
    torch.testing.assert_close(losses(several), losses(one), rtol=tolerance, atol=tolerance)
    assert abs(losses(one)[-1] - losses(one)[0]) > 20 * tolerance * abs(losses(one)[0])  # it learns
    for name in weights:
        expected, found = load_file(one / name), load_file(several / name)
        assert expected.keys() == found.keys()
        for key in expected:
            torch.testing.assert_close(found[key], expected[key], rtol=1e-2, atol=5e-3)


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


@pytest.mark.slow
def test_losses_are_those_of_one_process(prompts, tmp_path):
    """20 steps of each objective, and of alignment with low-rank matrices and of the whole model; before them, the
    operators by themselves."""
    jobs = replace(
        prompts,
        checks_operators=True,
        jobs=[
            Job("sl", pretraining("trm++", "sl")),
            Job("cl", pretraining("hstu", "cl")),
            Job("lora", alignment(strategy="lora")),
            Job("full", alignment(strategy="full", recompute=True)),
        ],
    )
    run_several(jobs, tmp_path / "two")
    run(jobs, tmp_path / "one")
    for name, files in (
        ("sl", ["model.safetensors"]),
        ("cl", ["model.safetensors"]),
        ("lora", ["adapter.safetensors", "lora/adapter_model.safetensors"]),
        ("full", ["adapter.safetensors", "llm/model.safetensors"]),
    ):
        same(tmp_path / "one" / name, tmp_path / "two" / name, files)
        one, two = (json.loads((tmp_path / k / name / "metrics.json").read_text()) for k in ("one", "two"))
        assert one.keys() == two.keys() and one["steps"] == two["steps"] == STEPS
        manifests = [json.loads((tmp_path / k / name / "manifest.json").read_text()) for k in ("one", "two")]
        assert manifests[0]["key"] == manifests[1]["key"] and not (tmp_path / "two" / f"{name}.work").exists()


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_the_run_goes_on_from_there(small_store, tmp_path):
    """Killed before step 12 with a checkpoint every step; resumed by three processes, then by one."""
    config = pretraining("hstu", "sl", checkpoint_seconds=0.0)
    run(Jobs(small_store.path, [Job("x", config)]), tmp_path / "whole")
    folder = tmp_path / "killed"
    started = start(Jobs(small_store.path, [Job("x", config, kill=(1, 12))]), folder)
    begun = time.monotonic()
    errors = finish(started)
    assert started[1].returncode == -9 and started[0].returncode == 1
    assert time.monotonic() - begun < 60 + 30  # start-up included
    assert "the same command goes on from the last checkpoint" in errors[0] and "Traceback" not in errors[0]
    assert not (folder / "x").exists() and (folder / "x.work").exists()
    started = start(Jobs(small_store.path, [Job("x", config, kill=(0, 15))]), folder, world=3)
    finish(started)
    assert started[0].returncode == -9
    run(Jobs(small_store.path, [Job("x", config)]), folder)
    assert losses(folder / "x")[:12] == pytest.approx(losses(tmp_path / "whole" / "x")[:12], rel=1e-4)
    same(tmp_path / "whole" / "x", folder / "x", ["model.safetensors"])
