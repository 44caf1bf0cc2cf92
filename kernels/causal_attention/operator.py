"""What causal attention's backends have in common.

The forward pass keeps, beside its output, one value for each query and head: the logarithm of the softmax's
denominator, from which the backward pass computes the weights again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..operator import ALL_BUT_DOUBLE, SINGLE, Kernel, declare
from ..results import empty_like, uninitialised
from . import eager, reference


def outputs(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, scale: float, backend: str) -> tuple[Tensor, Tensor]:
    """The output (T, H, Dv), and float32 logarithms of the denominators: natural ones (T, H), or for "triton" those to
    base 2, (H, T)."""
    tokens, heads = q.shape[0], q.shape[1]
    shape = (heads, tokens) if backend == "triton" else (tokens, heads)
    return uninitialised(v), q.new_empty(shape, dtype=torch.float32)


def gradients(
    grad_out: Tensor, out: Tensor, log_sums: Tensor, q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_like(q, k, v)


CAUSAL_ATTENTION = declare(
    "causal_attention",
    Kernel(
        "causal_attention",
        __package__,
        outputs,
        results=("out",),
        kept=("log_sums",),
        gradients=gradients,
        of=("q", "k", "v"),
    ),
    {"native": SINGLE, "triton": ALL_BUT_DOUBLE},
    reference=reference.causal_attention,
    eager=eager.causal_attention,
)
