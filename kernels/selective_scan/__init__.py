"""Mamba-1's selective state space scan (S6) over packed sequences (Gu & Dao 2023, "Mamba", section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_flag, check_like, check_offsets, check_tensor
from .operator import SELECTIVE_SCAN

__all__ = ["selective_scan"]


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    offsets: Tensor,
    *,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t`, `y_t = h_t C_t + D u_t`, times `SiLU(z_t)`; h restarts.

    A is discretised by zero-order hold and B by Euler's rule, as in the paper's code (equations 2 and 4 with the
    simplification of its section 3.6). The state is kept in float32 (float64 for float64 input). All inputs but
    `offsets` are differentiable, once. The native kernel's results do not depend on the number of threads.

    Args:
        u: (T, D) input, floating.
        delta: (T, D) step sizes, u's dtype; `softplus(delta + delta_bias)` is used if `delta_softplus`.
        A: (D, N) real, negative for a stable state; u's dtype or float32, as are `D` and `delta_bias`.
        B, C: (T, N), u's dtype.
        D: (D,) skip connection, or None.
        z: (T, D) gate, u's dtype, or None.
        delta_bias: (D,), added to delta before the softplus, or None.
        offsets: int64 (B+1,), from 0 to T; sequence b is tokens offsets[b]:offsets[b+1] and may be empty.
        initial_state: (B, D, N), u's dtype or float32; zeros if None.
        return_state: also return the state after each sequence's last token (an empty one's initial state).

    Returns:
        y (T, D) in u's dtype; with `return_state` also the state (B, D, N), float32 (float64 for float64 input).

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape, device or values; it is named.
        RuntimeError: the requested backend cannot run.
    """
    check_flag(delta_softplus, "delta_softplus")
    check_flag(return_state, "return_state")
    check_tensor(u, "u", (None, None))
    tokens, width = u.shape
    parameter = (u.dtype, torch.float32)
    check_tensor(A, "A", (width, None), parameter)
    states = A.shape[1]
    shared = (tokens, states)
    gate = None if z is None else (z, (tokens, width))
    check_like(u, "u", delta=(delta, (tokens, width)), B=(B, shared), C=(C, shared), z=gate)
    skip = None if D is None else (D, (width,))
    bias = None if delta_bias is None else (delta_bias, (width,))
    check_like(u, "u", parameter, A=(A, (width, states)), D=skip, delta_bias=bias)
    check_offsets(offsets, u)
    if initial_state is not None:
        shape = (offsets.shape[0] - 1, width, states)
        check_like(u, "u", parameter, initial_state=(initial_state, shape))
    return SELECTIVE_SCAN.of(u)(
        u,
        delta,
        A,
        B,
        C,
        D,
        z,
        delta_bias,
        offsets,
        delta_softplus,
        initial_state,
        return_state,
    )
