"""What HSTU attention's backends have in common, plain torch among them: scores are computed again for the gradient."""

from __future__ import annotations

from torch import Tensor

from ..operator import SINGLE, SINGLE_AND_BF16, Kernel, declare
from ..results import empty_where, uninitialised
from . import reference


def outputs(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    max_len: int,
    scale: float,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    timestamps: Tensor | None,
    num_targets: Tensor | None,
    max_attn_len: int,
    contextual_seq_len: int,
) -> Tensor:
    return uninitialised(v)


def gradients(
    grad_y: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    max_len: int,
    scale: float,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    timestamps: Tensor | None,
    num_targets: Tensor | None,
    max_attn_len: int,
    contextual_seq_len: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    return empty_where(q, k, v, position_bias, time_bias)


_KERNEL = Kernel(
    "hstu_attention",
    __package__,
    outputs,
    gradients=gradients,
    of=("q", "k", "v", "position_bias", "time_bias"),
)
_DTYPES = {"native": SINGLE, "triton": SINGLE_AND_BF16}

HSTU_ATTENTION = declare("hstu_attention", _KERNEL, _DTYPES, reference=reference.hstu_attention)
# With num_targets, max_attn_len or contextual_seq_len. The Triton kernels with these limits have run on no GPU, so on
# CUDA they run where they are asked for, and "eager" runs unasked.
HSTU_ATTENTION_LIMITED = declare(
    "hstu_attention (limited)",
    _KERNEL,
    _DTYPES,
    reference=reference.hstu_attention,
    default={"cpu": "native", "cuda": "eager"},
)
