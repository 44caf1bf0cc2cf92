"""Depthwise causal convolution over packed sequences, as Mamba has it before its scan (Gu & Dao 2023, fig. 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backend import Operator
from ..checks import check_flag, check_like, check_offsets, check_tensor
from . import eager, native, reference, triton

__all__ = ["causal_conv1d"]

_BACKENDS = Operator(
    "causal_conv1d",
    backends={
        "reference": reference.causal_conv1d,
        "eager": eager.causal_conv1d,
        "native": native.causal_conv1d,
        "triton": triton.causal_conv1d,
    },
    default={"cpu": "native", "cuda": "triton"},
    dtypes={"native": (torch.float32,), "triton": (torch.float32, torch.bfloat16)},
)


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
    return _BACKENDS.of(x)(
        x, weight, bias, offsets, activation=activation, initial_state=initial_state, return_state=return_state
    )
