"""What the Triton kernels of the Mamba-2 scan share: a chunk of CHUNK tokens of one sequence and the steps in it.

With l_t the sum of step A over the chunk's tokens up to t, the decay from token s to token t is exp(l_t - l_s), from
the chunk's start to t exp(l_t), from s to its end exp(l_last - l_s). Tokens past the sequence's end have step 0.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..triton_tools import find_sequence

CHUNK = 64  # tokens; with 128 half as many states are written, but short sequences leave chunks half empty
MOST_HEADS = 4  # heads of one group that share C B^T in a program


def heads_each(heads: int, groups: int) -> int:
    """The number of heads of a program, which divides the number of heads of a group."""
    return next(n for n in range(MOST_HEADS, 0, -1) if heads // groups % n == 0)


def most_chunks(x: Tensor, offsets: Tensor) -> int:
    """A bound on the chunks of all sequences that needs no value from the device."""
    return x.shape[0] // CHUNK + min(x.shape[0], offsets.shape[0] - 1)


@triton.jit
def find_chunk(number, offsets, order, first_chunk, sequences, CHUNK: tl.constexpr):
    """The first token (int64) and the number of tokens of a chunk."""
    s = find_sequence(first_chunk, number, sequences)
    sequence = tl.load(order + s)
    token = tl.load(offsets + sequence) + (number - tl.load(first_chunk + s)) * CHUNK
    return token, tl.minimum(tl.load(offsets + sequence + 1) - token, CHUNK)


@triton.jit
def load_rows(x, stride, token, count, column, columns, CHUNK: tl.constexpr):
    """Columns `column` of the chunk's rows, (CHUNK, columns), 0 outside.

    The chunk's address has 64 bits and is a scalar; the offsets of the rows have 32, which halves their registers.
    """
    row = tl.arange(0, CHUNK)[:, None]
    inside = (row < count) & (column[None, :] < columns)
    return tl.load(x + token * stride + (row * stride + column[None, :]), mask=inside, other=0.0)


@triton.jit
def store_rows(x, values, stride, token, count, column, columns, CHUNK: tl.constexpr):
    row = tl.arange(0, CHUNK)[:, None]
    inside = (row < count) & (column[None, :] < columns)
    tl.store(x + token * stride + (row * stride + column[None, :]), values.to(x.dtype.element_ty), mask=inside)


@triton.jit
def softplus(x):
    e = tl.exp(-tl.abs(x))
    u = 1.0 + e  # log1p(e) = log(u) e / (u - 1), in which the rounding of u cancels: small steps stay exact
    log1p = tl.where(u == 1.0, e, tl.log(u) * (e / tl.where(u == 1.0, 1.0, u - 1.0)))
    return tl.maximum(x, 0.0) + log1p


@triton.jit
def load_steps(
    dt, dt_stride, dt_bias, decay_rate, head, token, count, SOFTPLUS: tl.constexpr, CHUNK: tl.constexpr
):  # fmt: skip
    """The input of softplus, the steps and l, each (CHUNK,) in fp32, and l_last."""
    row = tl.arange(0, CHUNK)
    raw = tl.load(dt + (token * dt_stride + head) + row * dt_stride, mask=row < count, other=0.0).to(tl.float32)
    if dt_bias is not None:
        raw += tl.load(dt_bias + head).to(tl.float32)
    step = tl.where(row < count, softplus(raw) if SOFTPLUS else raw, 0.0)
    log_decay = tl.cumsum(step * decay_rate, 0)
    return raw, step, log_decay, tl.sum(tl.where(row == CHUNK - 1, log_decay, 0.0), 0)


@triton.jit
def decays(log_decay, SOURCES_FIRST: tl.constexpr, CHUNK: tl.constexpr):
    """exp(l_t - l_s), and 0 where s > t, which is masked before exp because it could overflow; (t, s), or (s, t)."""
    row = tl.arange(0, CHUNK)
    is_past = row[:, None] >= row[None, :]
    gaps = log_decay[:, None] - log_decay[None, :]
    if SOURCES_FIRST:
        is_past, gaps = row[:, None] <= row[None, :], log_decay[None, :] - log_decay[:, None]
    return tl.exp(tl.where(is_past, gaps, float("-inf")))
