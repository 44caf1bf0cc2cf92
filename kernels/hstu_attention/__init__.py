"""HSTU's pointwise attention over packed sequences (Zhai et al. 2024, "Actions Speak Louder than Words", section 3)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..backend import Operator
from ..checks import (
    are_values_hidden,
    check_finite,
    check_heads,
    check_like,
    check_offsets,
    check_positive,
    check_same,
    check_tensor,
    host_longest,
)
from . import reference
from .operator import hstu_attention as _operator

__all__ = ["hstu_attention"]


def _registered(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    *,
    max_len: int,
    scale: float,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    timestamps: Tensor | None,
    backend: str,
) -> Tensor:
    return _operator(q, k, v, offsets, position_bias, time_bias, timestamps, max_len, scale, backend)


_BACKENDS = Operator(
    "hstu_attention",
    backends={
        "reference": reference.hstu_attention,
        "eager": partial(_registered, backend="eager"),
        "native": partial(_registered, backend="native"),
        "triton": partial(_registered, backend="triton"),
    },
    default={"cpu": "native", "cuda": "triton"},
    dtypes={"native": (torch.float32,), "triton": (torch.float32, torch.bfloat16)},
)


def hstu_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    *,
    max_len: int,
    scale: float = 1.0,
    position_bias: Tensor | None = None,
    time_bias: Tensor | None = None,
    timestamps: Tensor | None = None,
) -> Tensor:
    """Causal SiLU attention: `out_i = sum_{j <= i} SiLU(scale * q_i . k_j + bias_ij) / max_len * v_j`.

    The sum runs over the tokens of i's own sequence; there is no softmax, and the divisor is `max_len` whatever the
    sequence's length (HSTU paper, equation 3 and section 3.1). The L x L scores never exist as a whole and are
    computed again for the gradient; second derivatives are not available.

    Args:
        q, k: (T, H, Dqk), floating, one dtype; rows may be strided, the last dimension not.
        v: (T, H, Dv), same dtype.
        offsets: int64 (B+1,), from 0 to T; sequence b is tokens offsets[b]:offsets[b+1] and may be empty.
        max_len: the divisor N and the longest sequence allowed.
        scale: factor of q . k (the paper and its code use 1).
        position_bias: (2 * max_len - 1,); entry (i - j) + max_len - 1 is added to the score of i and j. As j <= i,
            only the entries from max_len - 1 on are read. (The published code indexes by j - i: flip its table.)
        time_bias: (num_buckets,); entry floor(log(max(1, |t_i - t_j|)) / 0.301), at most the last, is added. The gap
            is between the two tokens' own times. (The published code takes t_{i+1} - t_j; that of the newest token,
            whose successor is unknown, would then be a special case.)
        timestamps: int64 (T,), seconds, whose differences int64 can hold; needed with `time_bias`, and only then.

    Returns:
        (T, H, Dv), the dtype of v, contiguous. bf16 and fp16 products round as torch's do; scores are fp32.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape, device or values; it is named.
        RuntimeError: the requested backend cannot run.
    """
    check_heads(q, "q")
    tokens, heads, width = q.shape
    check_heads(v, "v", (tokens, heads, None))
    check_like(q, "q", k=(k, (tokens, heads, width)), v=(v, (tokens, heads, None)))
    check_positive(max_len, "max_len", integer=True)
    check_finite(scale, "scale")
    check_offsets(offsets, q)
    if position_bias is not None:
        check_tensor(position_bias, "position_bias", (2 * max_len - 1,))
        check_same(q, "q", position_bias=position_bias)
    if time_bias is not None:
        check_tensor(time_bias, "time_bias", (None,))
        if time_bias.shape[0] == 0:
            raise ValueError("time_bias must have at least one bucket.")
        check_same(q, "q", time_bias=time_bias)
        if timestamps is None:
            raise ValueError("timestamps must be given with time_bias.")
        check_tensor(timestamps, "timestamps", (tokens,), (torch.int64,))
        check_same(q, "q", dtype=False, timestamps=timestamps)
    elif timestamps is not None:
        raise ValueError("timestamps must not be given without time_bias, which alone reads them.")
    if not are_values_hidden(offsets) and host_longest(offsets) > max_len:
        raise ValueError(f"max_len is {max_len}, but a sequence has {host_longest(offsets)} tokens.")
    return _BACKENDS.of(q)(
        q,
        k,
        v,
        offsets,
        max_len=max_len,
        scale=float(scale),
        position_bias=position_bias,
        time_bias=time_bias,
        timestamps=timestamps,
    )
