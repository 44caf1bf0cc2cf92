"""Mamba-2's state space scan with one decay a head, over packed sequences (Dao & Gu 2024, "Transformers are SSMs")."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_flag, check_like, check_offsets, check_tensor
from .operator import SSD_SCAN

__all__ = ["ssd_scan"]


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    offsets: Tensor,
    *,
    dt_softplus: bool = True,
    initial_state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T`, `y_t = h_t C_t + D x_t`, times `SiLU(z_t)`; h restarts at offsets.

    The state h of a head is (P, N), and A one value for each head (paper, section 2 and equation 16). It is kept in
    float32 (float64 for float64 input). All inputs but `offsets` are differentiable.

    Args:
        x: (T, H, P) input, floating.
        dt: (T, H) step sizes, x's dtype; `softplus(dt + dt_bias)` is used if `dt_softplus`.
        A: (H,), negative for a stable state; x's dtype or float32, as are `D` and `dt_bias`.
        B, C: (T, G, N), x's dtype; head h uses group h * G // H, so G divides H.
        D: (H,) skip connection, or None.
        z: (T, H, P) gate, x's dtype, or None. (Mamba-2's block normalises after gating: use `norm_gate` there.)
        dt_bias: (H,), added to dt before the softplus, or None.
        offsets: int64 (B+1,), from 0 to T; sequence b is tokens offsets[b]:offsets[b+1] and may be empty.
        initial_state: (B, H, P, N), x's dtype or float32; zeros if None.
        return_state: also return the state after each sequence's last token (an empty one's initial state).

    Returns:
        y (T, H, P) in x's dtype; with `return_state` also the state (B, H, P, N), float32 (float64 for float64 input).

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape, device or values; it is named.
        RuntimeError: the requested backend cannot run.
    """
    check_flag(dt_softplus, "dt_softplus")
    check_flag(return_state, "return_state")
    check_tensor(x, "x", (None, None, None))
    tokens, heads, width = x.shape
    parameter = (x.dtype, torch.float32)
    check_tensor(B, "B", (tokens, None, None))
    shared = tuple(B.shape)
    _, groups, states = shared
    gate = None if z is None else (z, (tokens, heads, width))
    check_like(x, "x", dt=(dt, (tokens, heads)), B=(B, shared), C=(C, shared), z=gate)
    skip = None if D is None else (D, (heads,))
    bias = None if dt_bias is None else (dt_bias, (heads,))
    check_like(x, "x", parameter, A=(A, (heads,)), D=skip, dt_bias=bias)
    if groups == 0 or heads % groups:
        raise ValueError(f"B has {groups} groups, which do not divide the {heads} heads of x.")
    check_offsets(offsets, x)
    if initial_state is not None:
        shape = (offsets.shape[0] - 1, heads, width, states)
        check_like(x, "x", parameter, initial_state=(initial_state, shape))
    return SSD_SCAN.of(x)(
        x,
        dt,
        A,
        B,
        C,
        D,
        z,
        dt_bias,
        offsets,
        dt_softplus,
        initial_state,
        return_state,
    )
