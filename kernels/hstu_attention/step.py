"""HSTU attention of new tokens over cached keys and values, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu

from ..key_values import Joined, StepGroup, step_groups
from .buckets import time_buckets
from .reference import hstu_attention as reference
from .settings import Settings
from .visible import Steps, history_lengths

# Scores held at once (floats).
_CELLS = 2**20


def eager_step(q: Tensor, joined: Joined, settings: Settings) -> Tensor:
    """Outputs (T, H, Dv) of the new tokens; the settings' offsets and timestamps are those of the joined histories."""
    k, v = joined.keys.k, joined.keys.v
    out = v.new_empty(q.shape[0], *v.shape[1:])
    history = history_lengths(settings.offsets, settings.limits)
    for group in step_groups(joined, _CELLS // q.shape[1]):
        steps = Steps(history[group.members], settings.limits, q.device)
        queries, keys, values = (x.transpose(1, 2) for x in (q[group.queries], k[group.rows], v[group.rows]))
        scores = (queries @ keys.mT).to(torch.promote_types(q.dtype, torch.float32)) * settings.scale
        weights = silu(scores + _bias(group, settings)) / settings.max_len
        seen = steps.seen(group.positions, group.places)[:, None]
        attended = weights.masked_fill(~seen, 0.0).to(v.dtype) @ values
        out = out.index_put((group.queries,), attended.transpose(1, 2))
    return out


def _bias(group: StepGroup, settings: Settings) -> Tensor | float:
    """The bias (G, 1, n, L) of a group's scores."""
    bias: Tensor | float = 0.0
    if settings.position_bias is not None:
        distance = group.positions[:, :, None] - group.places
        bias = bias + settings.position_bias[distance + (settings.max_len - 1)][:, None]
    if settings.time_bias is not None:
        times = settings.timestamps[group.rows]
        own = times.gather(1, group.positions)
        buckets = time_buckets(own[:, :, None] - times[:, None, :], len(settings.time_bias))
        bias = bias + settings.time_bias[buckets][:, None]
    return bias


def reference_step(q: Tensor, joined: Joined, settings: Settings) -> Tensor:
    """The specification: everything is computed again, and the new tokens' outputs are taken."""
    lengths, new = joined.lengths.tolist(), joined.new.tolist()
    is_new = torch.cat([torch.arange(n) >= n - m for n, m in zip(lengths, new, strict=True)] or [torch.zeros(0)]).bool()
    rows = is_new.nonzero().flatten().to(q.device)
    whole = q.new_zeros(len(is_new), *q.shape[1:]).index_copy(0, rows, q)
    return reference(whole, joined.keys.k, joined.keys.v, *settings)[rows]
