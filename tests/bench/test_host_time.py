"""Where the host's seconds of a training step are counted."""

from __future__ import annotations

import cProfile
import json
import time
from pathlib import Path

import pytest
import torch

from bench import host_time
from uqabench.kernels import checks


def test_a_step_of_a_small_log(small_store, tmp_path):
    found = host_time.measure(small_store, "hstu", "tiny", 1, tmp_path)
    assert min(found.batch, found.step, found.checks) > 0
    assert found.share == pytest.approx((found.batch + found.checks) / (found.batch + found.step))


def test_seconds_inside_a_file_are_those_from_entering_it_to_leaving_it():
    profiler = cProfile.Profile(time.perf_counter)
    x = torch.ones(5, 3)
    profiler.runcall(lambda: checks.check_tensor(x, "x", (None, 3)))
    found = host_time._inside(profiler, Path(checks.__file__))
    whole = sum(entry.totaltime for entry in profiler.getstats() if entry.code is checks.check_tensor.__code__)
    assert 0 < found == pytest.approx(whole)
    assert host_time._inside(profiler, Path(__file__)) == 0  # nothing entered it


def test_the_host_takes_less_than_its_goal_where_it_was_measured():
    kept = json.loads((Path(__file__).parents[2] / "bench" / "results" / "host-time.json").read_text())
    assert {row["name"] for row in kept["rows"]} >= {"hstu"}
    assert all(row["share"] <= row["goal"] for row in kept["rows"])
