"""The forward kernels of the causal convolution, and how a tile of a sequence is read.

A program owns TOKENS tokens of one sequence x CHANNELS channels and loops over the K taps, with the accumulators, 16 to
32 for each thread, in registers. For each tap it reads the tile shifted by one token: the first time from device
memory, then K - 1 times from the L1 cache. docs/gpu.md says what bounds it.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..triton_tools import find_sequence, on_device_of, tile_schedule, tuned

TOKENS = 32  # of a tile
CONFIGS = [
    triton.Config({"CHANNELS": 128}, num_warps=4),
    triton.Config({"CHANNELS": 64}, num_warps=4),
    triton.Config({"CHANNELS": 64}, num_warps=2),
]
STATE_CHANNELS = 128  # of a program that handles a sequence's state


@triton.jit
def find_tile(tile, offsets, order, first_tile, sequences, TOKENS: tl.constexpr):
    """The sequence of a tile, where it starts and ends, and the tile's first position in it; all int64."""
    s = find_sequence(first_tile, tile, sequences)
    sequence = tl.load(order + s)
    start = tl.load(offsets + sequence)
    return sequence, start, tl.load(offsets + sequence + 1) - start, (tile - tl.load(first_tile + s)) * TOKENS


@triton.jit
def seen(x, stride, initial, sequence, start, position, exists, channel, channels, TAPS: tl.constexpr):
    """Inputs at positions (rows, 1) of a sequence, in fp32, 0 unless `exists`; those before its start come from its
    state."""
    values = tl.load(x + (start + position) * stride + channel, mask=exists & (position >= 0), other=0.0).to(tl.float32)
    if initial is not None:
        place = (sequence * channels + channel) * (TAPS - 1) + (position + (TAPS - 1))
        values += tl.load(initial + place, mask=exists & (position < 0), other=0.0).to(tl.float32)
    return values


@triton.jit
def sum_of_taps(
    x, stride, weight, bias, initial, sequence, start, position, exists, channel, channels,
    TOKENS: tl.constexpr, CHANNELS: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """The input of the activation, (TOKENS, CHANNELS)."""
    total = tl.zeros((TOKENS, CHANNELS), tl.float32)
    if bias is not None:
        total += tl.load(bias + channel, mask=channel < channels, other=0.0).to(tl.float32)
    for k in tl.range(TAPS, loop_unroll_factor=4):
        tap = tl.load(weight + channel * TAPS + k, mask=channel < channels, other=0.0).to(tl.float32)
        before = position - (TAPS - 1) + k
        total += tap * seen(x, stride, initial, sequence, start, before, exists, channel, channels, TAPS)
    return total


@tuned(CONFIGS, key=["channels", "TAPS"], tokens="x")
@triton.jit
def convolve_kernel(
    y, x, stride, weight, bias, initial, offsets, order, first_tile, sequences, channels,
    IS_SILU: tl.constexpr, TAPS: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    if tile >= tl.load(first_tile + sequences):
        return
    sequence, start, length, first = find_tile(tile, offsets, order, first_tile, sequences, TOKENS)
    position = first + tl.arange(0, TOKENS)[:, None]
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    exists = (position < length) & (channel < channels)
    total = sum_of_taps(
        x, stride, weight, bias, initial, sequence, start, position, exists, channel, channels, TOKENS, CHANNELS, TAPS
    )
    if IS_SILU:
        total = total * tl.sigmoid(total)
    tl.store(y + (start + position) * channels + channel, total.to(y.dtype.element_ty), mask=exists)


@triton.jit
def state_kernel(
    state, x, stride, initial, offsets, channels, TAPS: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    """Element i of a sequence's last state is its input at position length - (K - 1) + i."""
    sequence = tl.program_id(0).to(tl.int64)
    start = tl.load(offsets + sequence)
    length = tl.load(offsets + sequence + 1) - start
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    exists = channel < channels
    for i in range(TAPS - 1):
        position = length - (TAPS - 1) + i
        value = seen(x, stride, initial, sequence, start, position, exists, channel, channels, TAPS)
        place = (sequence * channels + channel) * (TAPS - 1) + i
        tl.store(state + place, value.to(state.dtype.element_ty), mask=exists)


def most_tiles(x: Tensor, offsets: Tensor) -> int:
    """A bound on the tiles of all sequences that needs no value from the device."""
    return x.shape[0] // TOKENS + min(x.shape[0], offsets.shape[0] - 1)


def convolve(
    y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial: Tensor | None,
    offsets: Tensor,
    is_silu: bool,
) -> None:
    """Writes y (T, C), contiguous."""
    if x.numel() == 0:
        return
    channels, taps = weight.shape
    order, first_tile = tile_schedule(offsets, TOKENS)
    with on_device_of(x):
        convolve_kernel[lambda meta: (most_tiles(x, offsets), triton.cdiv(channels, meta["CHANNELS"]))](
            y, x, x.stride(0), weight, bias, initial, offsets, order, first_tile, len(order), channels,
            IS_SILU=is_silu, TAPS=taps, TOKENS=TOKENS,
        )  # fmt: skip


def write_state(state: Tensor, x: Tensor, initial: Tensor | None, offsets: Tensor) -> None:
    """Writes the last state (B, C, K-1), contiguous."""
    if state.numel() == 0:
        return
    sequences, channels, before = state.shape
    with on_device_of(x):
        state_kernel[(sequences, triton.cdiv(channels, STATE_CHANNELS))](
            state, x, x.stride(0), initial, offsets, channels, TAPS=before + 1, CHANNELS=STATE_CHANNELS
        )
