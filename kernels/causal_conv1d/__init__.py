"""Depthwise causal convolution over packed sequences, as Mamba has it before its scan (Gu & Dao 2023, fig. 3)."""

from __future__ import annotations

from torch import Tensor

from ..checks import check_flag, check_like, check_offsets, check_tensor
from .operator import CAUSAL_CONV1D

__all__ = ["causal_conv1d"]


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    *,
    activation: str | None = None,
    initial_state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`y_t = bias + sum_k weight[:, k] * x_{t - (K - 1) + k}`; what lies before a sequence is its state, or zero.

    All inputs but `offsets` are differentiable, once. In bf16 and fp16 the eager sum rounds at each tap. The
    native kernel's results do not depend on the number of threads.

    Args:
        x: (T, C), floating.
        weight: (C, K), x's dtype; the last tap meets the current token.
        bias: (C,), x's dtype, or None.
        offsets: int64 (B+1,), from 0 to T; sequence b is tokens offsets[b]:offsets[b+1] and may be empty.
        activation: None or "silu", applied to y.
        initial_state: (B, C, K-1), x's dtype: the K-1 inputs before each sequence, oldest first; zeros if None.
        return_state: also return the last K-1 inputs of each sequence, older state included where it is shorter.

    Returns:
        y (T, C); with `return_state` also the state (B, C, K-1). Both in x's dtype.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape, device or values; it is named.
        RuntimeError: the requested backend cannot run.
    """
    check_flag(return_state, "return_state")
    check_tensor(x, "x", (None, None))
    channels = x.shape[1]
    check_tensor(weight, "weight", (channels, None))
    taps = weight.shape[1]
    if taps == 0:
        raise ValueError("weight must have at least one tap.")
    check_like(x, "x", weight=(weight, (channels, taps)), bias=None if bias is None else (bias, (channels,)))
    check_offsets(offsets, x)
    if activation not in (None, "silu"):
        raise ValueError(f"activation must be None or 'silu', not {activation!r}.")
    if initial_state is not None:
        check_like(x, "x", initial_state=(initial_state, (offsets.shape[0] - 1, channels, taps - 1)))
    return CAUSAL_CONV1D.of(x)(x, weight, bias, offsets, activation, initial_state, return_state)
