"""Estimated seconds of a node from what its siblings took."""

from __future__ import annotations

from pathlib import Path

import pytest

from uqabench.files import write_json
from uqabench.plan import estimate
from uqabench.plan.node import Node


def pretraining(seed: int, *, train: bool = True, max_steps: int = 300) -> Node:
    settings = {
        "encoder": {"preset": "demo", "overrides": {}},
        "optim": {"max_steps": max_steps, "epochs": 20},
        "token_budget": 4096,
        "train": train,
        "seed": seed,
    }
    return Node("pretrain", "sasrec", settings, {}, open=lambda made: None)


def record(node: Node, run: Path, seconds: float) -> None:
    folder = node.path(run)
    folder.mkdir(parents=True)
    write_json(folder / "seconds.json", {"seconds": seconds})
    write_json(folder / "manifest.json", {"config": node.settings})


def test_another_seed_takes_as_long(tmp_path):
    record(pretraining(0), tmp_path, 40.0)
    record(pretraining(1), tmp_path, 50.0)
    assert estimate.seconds(pretraining(2), tmp_path) == (pytest.approx(45.0), True)


def test_twice_the_steps_take_twice_as_long(tmp_path):
    record(pretraining(0), tmp_path, 40.0)
    assert estimate.seconds(pretraining(0, max_steps=600), tmp_path) == (pytest.approx(80.0), True)


def test_an_untrained_twin_neither_takes_nor_tells_the_time_of_training(tmp_path):
    record(pretraining(0), tmp_path, 40.0)
    assert estimate.seconds(pretraining(1, train=False), tmp_path) == (estimate.START, False)
    record(pretraining(0, train=False), tmp_path, 0.1)
    assert estimate.seconds(pretraining(1), tmp_path) == (pytest.approx(40.0), True)


def test_a_damaged_sibling_is_left_out(tmp_path):
    record(pretraining(0), tmp_path, 40.0)
    record(pretraining(1), tmp_path, 400.0)
    (pretraining(1).path(tmp_path) / "manifest.json").write_text("{}")
    assert estimate.seconds(pretraining(2), tmp_path) == (pytest.approx(40.0), True)
