"""Kernels whose configuration is measured, in several processes at once.

The clock is made up, since a CPU times no kernels: each process would choose another configuration by its own.
"""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist

CONFIGURATIONS, OWN_SIZE = (16, 32, 64), 4_096
"""OWN_SIZE: of a call that the last process alone makes."""


def scale_rows() -> None:
    """What names the kernel."""


class Function:
    """A jitted function that keeps the blocks that it ran with."""

    arg_names = ["x", "width"]

    def __init__(self) -> None:
        self.fn, self.ran = scale_rows, []

    def run(self, *args: object, **kwargs: int) -> None:
        self.ran.append(kwargs["BLOCK"])


def check() -> None:
    """Processes choose alike, each choice is measured by one, and none waits for what another never needs.

    Nothing is looked at where there is no Triton.
    """
    if find_spec("triton") is None:
        return
    import triton

    from uqabench.kernels import triton_tuning

    rank, last = dist.get_rank(), dist.get_world_size() - 1
    function, timed = Function(), []
    kernel = triton_tuning.Tuned(function, [triton.Config({"BLOCK": n}) for n in CONFIGURATIONS], ["width"], "x")

    def bench(self, *args, config, **meta):
        timed.append((self.size, config.kwargs["BLOCK"]))
        time.sleep(0.01 * (rank + 1))
        return [1.0 + (CONFIGURATIONS.index(config.kwargs["BLOCK"]) - rank) ** 2] * 3  # each another one

    with (
        patch.object(triton_tuning._OfSize, "_bench", bench),
        patch.object(triton_tuning, "card", lambda: "made up"),
        patch.object(triton_tuning.Autotuner, "check_disk_cache", lambda self, key, configs, bench: bench() and False),
        patch.dict(os.environ, {triton_tuning.ENVIRONMENT_VARIABLE: "measure"}),
    ):
        if rank == last:
            kernel[(1,)](torch.zeros(OWN_SIZE, 2), 8)
        for tokens in (60, 60, 500, 60):
            kernel[(1,)](torch.zeros(tokens, 2), 8)
    everywhere: list[Any] = [None] * (last + 1)
    dist.all_gather_object(everywhere, (function.ran[-4:], timed))
    assert len({tuple(ran) for ran, _ in everywhere}) == 1, everywhere
    assert sorted(pair for _, pairs in everywhere for pair in pairs) == [
        (size, block) for size in (64, 512, OWN_SIZE) for block in CONFIGURATIONS
    ], everywhere
    assert {size for size, _ in everywhere[last][1]} >= {OWN_SIZE}
