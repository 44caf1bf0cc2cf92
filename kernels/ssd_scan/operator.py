"""What the compiled backends of Mamba-2's scan have in common.

The backward pass computes the states between chunks again; of the forward pass it needs y before the gate.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..operator import SINGLE, SINGLE_AND_BF16, Kernel, declare
from ..results import empty_where, uninitialised
from . import eager, reference

MOST_STATES = 256
"""Columns of B and C that a program of "triton" can hold; wider ones are left to plain torch."""


def outputs(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    offsets: Tensor,
    dt_softplus: bool,
    initial_state: Tensor | None,
    return_state: bool,
    keep: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """y, the final state if asked for, and for the gradient of z y before the gate."""
    state = (offsets.shape[0] - 1, *x.shape[1:], B.shape[2])
    return (
        uninitialised(x),
        x.new_empty(state, dtype=torch.float32) if return_state else None,
        uninitialised(x) if keep and z is not None else None,
    )


def gradients(
    grad_y: Tensor,
    grad_state: Tensor | None,
    ungated: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    offsets: Tensor,
    dt_softplus: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    return empty_where(x, dt, A, B, C, D, z, dt_bias, initial_state)


_KERNEL = Kernel(
    "ssd_scan",
    __package__,
    outputs,
    results=("y", "state"),
    kept=("ungated",),
    gradients=gradients,
    of=("x", "dt", "A", "B", "C", "D", "z", "dt_bias", "initial_state"),
)


def _run(backend: str, *inputs: Any) -> Tensor | tuple[Tensor, Tensor]:
    x, dt, A, B, C, D, z, dt_bias, offsets, dt_softplus, initial_state, return_state = inputs
    if backend == "triton" and B.shape[2] > MOST_STATES:
        return eager.ssd_scan(*inputs)
    A, D, dt_bias, initial_state = (None if p is None else p.contiguous() for p in (A, D, dt_bias, initial_state))
    tensors = (x, dt, A, B, C, D, z, dt_bias, offsets)
    results = _KERNEL(backend, *tensors, dt_softplus, initial_state, return_state)
    return results if return_state else results[0]


SSD_SCAN = declare(
    "ssd_scan",
    _run,
    {"native": SINGLE, "triton": SINGLE_AND_BF16},
    reference=reference.ssd_scan,
    eager=eager.ssd_scan,
)
