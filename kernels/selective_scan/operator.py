"""What the compiled backends of the selective scan have in common.

The forward pass keeps a state every few tokens, from which the backward pass computes those between again.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..operator import SINGLE, SINGLE_AND_BF16, Kernel, declare
from ..results import empty_where
from . import eager, reference

KEPT_EVERY = {"native": 32, "cuda": 8}
"""Tokens from one kept state to the next: scan_chunk of csrc/cpu/selective_scan.h, kept_every of
csrc/cuda/selective_scan.h."""
MOST_STATES = 256
"""States of a channel that "cuda" takes."""


def outputs(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    offsets: Tensor,
    delta_softplus: bool,
    initial_state: Tensor | None,
    return_state: bool,
    keep: bool,
    backend: str,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """y, the state if asked for, and for a gradient states on the way and, of "native", y before its gate."""
    tokens, channels = u.shape
    states = A.shape[1]
    places = tokens // KEPT_EVERY[backend] + 2  # sizes of 0 or 1 would be conditions of torch.export
    return (
        u.new_empty(tokens, channels),
        A.new_empty(offsets.shape[0] - 1, channels, states) if return_state else None,
        A.new_empty(places, states, channels) if keep else None,
        u.new_empty(tokens, channels) if keep and z is not None and backend == "native" else None,
    )


def gradients(
    grad_y: Tensor,
    grad_state: Tensor | None,
    kept: Tensor,
    ungated: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    offsets: Tensor,
    delta_softplus: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    return empty_where(u, delta, A, B, C, D, z, delta_bias, initial_state)


_KERNEL = Kernel(
    "selective_scan",
    __package__,
    outputs,
    results=("y", "state"),
    kept=("kept", "ungated"),
    gradients=gradients,
    of=("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state"),
)


def run(backend: str, *inputs: Any) -> Tensor | tuple[Tensor, Tensor]:
    """The operator by a compiled backend; arguments are checked by the caller."""
    u, delta, A, B, C, D, z, delta_bias, offsets, delta_softplus, initial_state, return_state = inputs
    if initial_state is not None:
        initial_state = initial_state.contiguous()
    if backend == "cuda":
        if A.shape[1] > MOST_STATES:
            raise RuntimeError(f"backend 'cuda' of selective_scan takes {MOST_STATES} states, not {A.shape[1]}.")
        offsets = offsets.contiguous()
        A, D, delta_bias, initial_state = (
            None if x is None else x.float().contiguous() for x in (A, D, delta_bias, initial_state)
        )
    tensors = (u, delta, A, B, C, D, z, delta_bias, offsets)
    results = _KERNEL(backend, *tensors, delta_softplus, initial_state, return_state)
    return results if return_state else results[0]


SELECTIVE_SCAN = declare(
    "selective_scan",
    run,
    {"native": SINGLE, "cuda": SINGLE_AND_BF16},
    reference=reference.selective_scan,
    eager=eager.selective_scan,
)
