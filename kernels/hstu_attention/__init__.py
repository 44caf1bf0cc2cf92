"""HSTU's pointwise attention over packed sequences (Zhai et al. 2024, "Actions Speak Louder than Words", section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backend import Operator
from ..checks import (
    are_values_hidden,
    check_count,
    check_finite,
    check_heads,
    check_like,
    check_positive,
    check_same,
    check_tensor,
    host_array,
    host_lengths,
    host_longest,
)
from ..key_values import KeyValues, check_cache, join
from .arguments import check_longest, check_sequences
from .operator import HSTU_ATTENTION, HSTU_ATTENTION_LIMITED
from .settings import Settings
from .step import eager_step, reference_step

__all__ = ["KeyValues", "hstu_attention", "hstu_attention_step"]


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
    num_targets: Tensor | None = None,
    max_attn_len: int = 0,
    contextual_seq_len: int = 0,
    attn_scale: Tensor | None = None,
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
            only the entries from max_len - 1 on are read, but for a prefix. (The published code indexes by j - i: flip
            its table.)
        time_bias: (num_buckets,); entry floor(log(max(1, |t_i - t_j|)) / 0.301), at most the last, is added. The gap
            is between the two tokens' own times. (The published code takes t_{i+1} - t_j; that of the newest token,
            whose successor is unknown, would then be a special case.)
        timestamps: int64 (T,), seconds, whose differences int64 can hold; needed with `time_bias`, and only then.
        num_targets: int64 (B,), from 0 to the sequence's length: so many last tokens are targets, which see the
            history before them and themselves, but not each other.
        max_attn_len: how many steps back a token sees; 0: all. Every target stands one step after the history, and a
            prefix is one step before it.
        contextual_seq_len: so many first tokens (or the whole history, if that is shorter) are a prefix: they see the
            whole history, and every later token sees them, a window permitting.
        attn_scale: (T,), q's dtype or float32: takes the place of 1 / max_len in the output of each token.

    The last four are the arguments of that name of generative-recommenders' `hstu_mha`, and mean the same.

    Returns:
        (T, H, Dv), the dtype of v, contiguous. bf16 and fp16 products round as torch's do; scores are fp32.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape, device or values; it is named.
        RuntimeError: the requested backend cannot run.
    """
    _check(q, k, v, offsets, max_len, scale, position_bias, time_bias, timestamps)
    check_longest(offsets, max_len)
    operator = HSTU_ATTENTION
    if num_targets is not None or max_attn_len != 0 or contextual_seq_len != 0:
        _check_limits(q, offsets, num_targets, max_attn_len, contextual_seq_len)
        operator = HSTU_ATTENTION_LIMITED
    if attn_scale is not None:
        check_like(q, "q", (q.dtype, torch.float32), attn_scale=(attn_scale, (q.shape[0],)))
    out = operator.of(q)(
        q,
        k,
        v,
        offsets,
        max_len,
        float(scale),
        position_bias,
        time_bias,
        timestamps,
        num_targets,
        max_attn_len,
        contextual_seq_len,
    )
    return out if attn_scale is None else _scaled(out, attn_scale, max_len)


_STEP = Operator("hstu_attention_step", backends={"reference": reference_step, "eager": eager_step})


def hstu_attention_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    cache: KeyValues | None,
    *,
    max_len: int,
    scale: float = 1.0,
    position_bias: Tensor | None = None,
    time_bias: Tensor | None = None,
    timestamps: Tensor | None = None,
    num_targets: Tensor | None = None,
    max_attn_len: int = 0,
    contextual_seq_len: int = 0,
    attn_scale: Tensor | None = None,
) -> tuple[Tensor, KeyValues]:
    """`hstu_attention` of new tokens behind histories whose keys and values are kept: its last rows.

    Each new token costs as much as its history is long, and a history nothing again. Targets among the new tokens see
    the history and do not join it: so candidates are scored, and the state is kept. The outputs of a contextual prefix
    are those at the time when it is new, though a later call of `hstu_attention` would let it see what came since.

    Args:
        q, k, v: the new tokens', as in `hstu_attention`.
        offsets: int64 (B+1,), of the new tokens; a history may have none.
        cache: the histories, as the last call returned them; None: they are empty.
        max_len: the divisor N and the longest history allowed, new tokens included.
        timestamps: int64 (T,), of the new tokens; needed with `time_bias`, and only then.
        num_targets: int64 (B,), from 0 to the number of a history's new tokens.
        (the others): as in `hstu_attention`; lengths and positions count from the history's first token.

    Returns:
        (T, H, Dv), and the cache with the new tokens that are no targets; `cache` itself stays as it is. Gradients pass
        through all of it.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape, device or values; it is named.
        RuntimeError: the requested backend cannot run.
    """
    _check(q, k, v, offsets, max_len, scale, position_bias, time_bias, timestamps)
    _check_limits(q, offsets, num_targets, max_attn_len, contextual_seq_len)
    if attn_scale is not None:
        check_like(q, "q", (q.dtype, torch.float32), attn_scale=(attn_scale, (q.shape[0],)))
    if cache is not None:
        check_cache(cache, k, v, offsets, timestamps)
    joined = join(cache, k, v, offsets, timestamps)
    keys = joined.keys
    longest = host_longest(keys.offsets)
    if longest > max_len:
        raise ValueError(f"max_len is {max_len}, but a history has {longest} tokens with the new ones.")
    tables, limits = (position_bias, time_bias, keys.timestamps), (num_targets, max_attn_len, contextual_seq_len)
    settings = Settings(keys.offsets, max_len, float(scale), *tables, *limits)
    out = _STEP.of(q)(q, joined, settings)
    kept = keys if num_targets is None else joined.without_last(host_array(num_targets))
    return (out if attn_scale is None else _scaled(out, attn_scale, max_len)), kept


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: Tensor,
    max_len: int,
    scale: float,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    timestamps: Tensor | None,
) -> None:
    check_heads(q, "q")
    tokens, heads, width = q.shape
    check_heads(v, "v", (tokens, heads, None))
    check_like(q, "q", k=(k, (tokens, heads, width)), v=(v, (tokens, heads, None)))
    check_positive(max_len, "max_len", integer=True)
    check_finite(scale, "scale")
    if time_bias is None and timestamps is not None:
        raise ValueError("timestamps must not be given without time_bias, which alone reads them.")
    if time_bias is not None and timestamps is None:
        raise ValueError("timestamps must be given with time_bias.")
    check_sequences(q, "q", offsets, max_len, position_bias, time_bias, timestamps)
    if time_bias is not None and time_bias.shape[0] == 0:
        raise ValueError("time_bias must have at least one bucket.")


def _check_limits(
    q: Tensor, offsets: Tensor, num_targets: Tensor | None, max_attn_len: int, contextual_seq_len: int
) -> None:
    check_count(max_attn_len, "max_attn_len")
    check_count(contextual_seq_len, "contextual_seq_len")
    if num_targets is None:
        return
    check_tensor(num_targets, "num_targets", (offsets.shape[0] - 1,), (torch.int64,))
    check_same(q, "q", dtype=False, num_targets=num_targets)
    if are_values_hidden(num_targets) or are_values_hidden(offsets):
        return
    for b, (targets, length) in enumerate(zip(host_array(num_targets).tolist(), host_lengths(offsets), strict=True)):
        if not 0 <= targets <= length:
            raise ValueError(f"num_targets[{b}] is {targets}, but the sequence has {length} tokens.")


def _scaled(out: Tensor, attn_scale: Tensor, max_len: int) -> Tensor:
    """The output with attn_scale in the place of 1 / max_len: a factor of whole rows, which needs no kernel."""
    return (out * (attn_scale * max_len)[:, None, None]).to(out.dtype)
