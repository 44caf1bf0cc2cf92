"""Starts the processes of a test, as torchrun does, and compares what they leave with one process's."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.stages.distributed.jobs import Jobs
from uqabench.encoders import UserEncoderConfig
from uqabench.settings import AlignConfig, OptimConfig, PretrainConfig

ROOT = Path(__file__).parents[3]
STEPS = 20
LEARNED = 5e-4
"""How much of its first loss a run has to learn for a comparison to say anything."""


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
    optim = OptimConfig(
        lr=5e-3,
        epochs=changes.pop("epochs", STEPS),
        checkpoint_seconds=changes.pop("checkpoint_seconds", 1e9),
    )
    shape = UserEncoderConfig(encoder=encoder, preset="tiny", overrides={"dropout": 0.0})
    sizes = {"length": 24, "batch_size": 512, "token_budget": 8192}
    return PretrainConfig(encoder=shape, objective=objective, optim=optim, **{**sizes, **changes})


def alignment(**changes) -> AlignConfig:
    optim = OptimConfig(lr=5e-5, epochs=STEPS, checkpoint_seconds=changes.pop("checkpoint_seconds", 1e9))
    return AlignConfig(**{"batch_questions": 512, "token_budget": 1024, "lora_rank": 4, "optim": optim, **changes})


def same(one: Path, several: Path, weights: list[str], tolerance: float = 2e-4, steps: int = STEPS) -> None:
    """The losses of every step and the weights at the end."""
    assert len(losses(one)) == steps
    torch.testing.assert_close(losses(several), losses(one), rtol=tolerance, atol=tolerance)
    assert abs(losses(one)[-1] - losses(one)[0]) > LEARNED * abs(losses(one)[0])
    for name in weights:
        expected, found = load_file(one / name), load_file(several / name)
        assert expected.keys() == found.keys()
        for key in expected:
            torch.testing.assert_close(found[key], expected[key], rtol=1e-2, atol=5e-3)
