"""Plain torch: the chunked dual form (Dao & Gu 2024, section 6), made of large matrix products.

Sequences are cut into chunks of at most CHUNK tokens. Within a chunk, y = (C B^T * decay) x like masked attention;
between chunks only the state at each chunk's end is passed on, in a loop over chunk indices that processes all
sequences with so many chunks. The last chunk of a sequence is padded with zeros, which neither decay nor add to the
state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import silu, softplus

from ..checks import host_array
from ..memory import remember
from ..time_major import TimeMajor, time_major

CHUNK = 32


@dataclass(frozen=True)
class _Chunks:
    """M chunks of `length` positions, ordered time-major by chunk index."""

    length: int
    positions: Tensor  # (T,) int64: each token's index among the M * length padded positions
    order: TimeMajor  # of the chunks


def _chunks(offsets: Tensor) -> _Chunks:
    starts = host_array(offsets)
    lengths = np.diff(starts)
    size = int(min(CHUNK, lengths.max(initial=1)))
    counts = -(-lengths // size)
    first_chunks = np.concatenate(([0], counts.cumsum()))
    order = time_major(torch.from_numpy(first_chunks).to(offsets.device))
    steps = torch.from_numpy(np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)).to(offsets.device)
    chunk = torch.from_numpy(np.repeat(first_chunks[:-1], lengths)).to(offsets.device) + steps // size
    return _Chunks(size, order.positions[chunk] * size + steps % size, order)


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
    dt_softplus: bool = True,
    initial_state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)  # decays near 1 and long sums need more than bf16's 8 bits
    chunks = remember(offsets, f"ssd_scan chunks {CHUNK}", lambda: _chunks(offsets))
    tokens, step = x.to(dtype), dt.to(dtype)
    if dt_bias is not None:
        step = step + dt_bias.to(dtype)
    if dt_softplus:
        step = softplus(step)
    if initial_state is None:
        initial_state = tokens.new_zeros(len(offsets) - 1, *x.shape[1:], B.shape[2])
    y, state = _scan(tokens, step, A.to(dtype), B.to(dtype), C.to(dtype), initial_state.to(dtype), chunks)
    if D is not None:
        y = torch.addcmul(y, tokens, D.to(dtype)[:, None])
    if z is not None:
        y = y * silu(z.to(dtype))
    y = y.to(x.dtype)
    return (y, state) if return_state else y


def _scan(
    x: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor, chunks: _Chunks
) -> tuple[Tensor, Tensor]:
    """The scan without D and z. Below, M chunks of Q positions, H heads of width P in G groups, N states."""
    groups, (heads, width) = B.shape[1], x.shape[1:]

    def chunked(v: Tensor) -> Tensor:  # (T, S, W) to (M, S, Q, W)
        padded = v.new_zeros(sum(chunks.order.sizes) * chunks.length, *v.shape[1:])
        return padded.index_copy(0, chunks.positions, v).unflatten(0, (-1, chunks.length)).transpose(1, 2)

    b, c = chunked(B), chunked(C)  # (M, G, Q, N)
    dt_x = chunked(x * step[:, :, None])  # (M, H, Q, P)
    log_decay = chunked((step * A)[:, :, None]).squeeze(-1).cumsum(-1)  # (M, H, Q), since the chunk's start

    gaps = log_decay[..., :, None] - log_decay[..., None, :]
    # The future is masked before exp, which could overflow there. The diagonal is a constant 0: its gradient would add
    # and subtract one large value, and lose the small difference in rounding.
    other = gaps.new_full((chunks.length, chunks.length), -torch.inf).triu(1)
    is_past = torch.ones_like(other, dtype=torch.bool).tril(-1)
    decay = torch.where(is_past, gaps, other).exp()
    scores = (c @ b.transpose(-1, -2)).unsqueeze(2) * decay.unflatten(1, (groups, -1))
    y = scores.flatten(1, 2) @ dt_x  # (M, H, Q, P), from within the chunk

    left = (log_decay[..., -1:] - log_decay).exp()[..., None]
    gained = (dt_x * left).unflatten(1, (groups, -1)).transpose(-1, -2).flatten(2, 3) @ b  # (M, G, H/G * P, N)
    gained = gained.unflatten(2, (-1, width)).flatten(1, 2)  # (M, H, P, N)
    before, state = _carry(gained, log_decay[..., -1].exp(), initial_state, chunks.order)

    carried = c @ before.unflatten(1, (groups, -1)).flatten(2, 3).transpose(-1, -2)  # (M, G, Q, H/G * P)
    carried = carried.unflatten(-1, (-1, width)).transpose(2, 3).flatten(1, 2)  # (M, H, Q, P)
    y = torch.addcmul(y, carried, log_decay.exp()[..., None])
    return y.transpose(1, 2).reshape(-1, heads, width).index_select(0, chunks.positions), state


def _carry(gained: Tensor, decay: Tensor, initial_state: Tensor, order: TimeMajor) -> tuple[Tensor, Tensor]:
    """The state (H, P, N) before each chunk, (M, H, P, N), and after each sequence, (B, H, P, N)."""
    h = initial_state.index_select(0, order.sequences)
    before, ended = [], []
    for g, d in zip(gained.split(order.sizes), decay.split(order.sizes), strict=True):
        ended.append(h[len(g) :])
        h = h[: len(g)]
        before.append(h)
        h = torch.addcmul(g, h, d[:, :, None, None])
    ended.append(h)
    before_all = torch.cat(before) if before else gained
    return before_all, torch.cat(ended[::-1]).index_select(0, order.ranks)
