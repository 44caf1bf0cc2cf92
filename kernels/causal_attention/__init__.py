"""Causal softmax attention over packed sequences (Vaswani et al. 2017, section 3.2.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backend import Operator
from ..checks import check_finite, check_heads, check_like, check_offsets
from ..key_values import KeyValues, check_cache, join
from . import flash, step
from .operator import CAUSAL_ATTENTION

__all__ = ["KeyValues", "causal_attention", "causal_attention_step"]


def causal_attention(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, *, scale: float | None = None) -> Tensor:
    """`out_i = sum_{j <= i} softmax_j(scale * q_i . k_j) v_j`, j over the tokens of i's own sequence.

    On CUDA, unless a backend is requested, flash-attn or torch's own fused kernel runs where `flash.implementation`
    says so.

    Args:
        q, k: (T, H, D), floating, one dtype; rows may be strided, the last dimension not.
        v: (T, H, Dv), same dtype.
        offsets: int64 (B+1,), from 0 to T; sequence b is tokens offsets[b]:offsets[b+1] and may be empty.
        scale: factor of q . k; None: 1 / sqrt(D).

    Returns:
        (T, H, Dv), the dtype of v. The native kernel's result has no second derivatives.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape, device or values; it is named.
        RuntimeError: the requested backend cannot run.
    """
    scale = _check(q, k, v, offsets, scale)
    is_trained = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    fused = flash.fused_choice(q.device.type, q.dtype, q.shape[2], v.shape[2], is_trained)
    if fused is not None:
        return flash.causal_attention(fused, q, k, v, offsets, scale)
    return CAUSAL_ATTENTION.of(q)(q, k, v, offsets, scale)


_STEP = Operator("causal_attention_step", backends={"reference": step.reference_step, "eager": step.eager_step})


def causal_attention_step(
    q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, cache: KeyValues | None, *, scale: float | None = None
) -> tuple[Tensor, KeyValues]:
    """`causal_attention` of new tokens behind histories whose keys and values are kept: its last rows.

    Args:
        q, k, v: the new tokens', as in `causal_attention`.
        offsets: int64 (B+1,), of the new tokens; a history may have none.
        cache: the histories, as the last call returned them; None: they are empty.
        scale: factor of q . k; None: 1 / sqrt(D).

    Returns:
        (T, H, Dv), and the cache with the new tokens; `cache` itself stays as it is. Gradients pass through all of it.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape, device or values; it is named.
        RuntimeError: the requested backend cannot run.
    """
    scale = _check(q, k, v, offsets, scale)
    if cache is not None:
        check_cache(cache, k, v, offsets, None)
    joined = join(cache, k, v, offsets, None)
    return _STEP.of(q)(q, joined, scale), joined.keys


def _check(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, scale: float | None) -> float:
    """The scale, once all arguments are checked."""
    check_heads(q, "q")
    tokens, heads, width = q.shape
    check_heads(v, "v", (tokens, heads, None))
    check_like(q, "q", k=(k, (tokens, heads, width)), v=(v, (tokens, heads, None)))
    check_offsets(offsets, q)
    scale = width**-0.5 if scale is None else scale
    check_finite(scale, "scale")
    return float(scale)
