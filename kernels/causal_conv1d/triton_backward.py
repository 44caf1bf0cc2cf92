"""The backward kernels of the causal convolution.

There are two passes over tiles of TOKENS tokens of one sequence x CHANNELS channels. The first recomputes the input of
SiLU, writes its gradient (in x's dtype) and sums the gradients of the weights: LANES programs share the tiles of a
block of channels, and each writes one partial sum, so that the order of addition is fixed and the partial sums stay
small (LANES (K + 1) C floats). The second pass is the forward convolution in reverse: each input receives gradients
from the K tokens that begin with its own. One pass would evaluate SiLU K times for each element: about 10 special
operations, which take longer than its 6 bytes of device memory. docs/gpu.md says what bounds them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_tools import INTERPRETED, on_device_of, tile_schedule, tuned
from .triton_forward import CONFIGS as INPUT_CONFIGS
from .triton_forward import STATE_CHANNELS, TOKENS, find_tile, most_tiles, seen, sum_of_taps

LANES = 2 if INTERPRETED else 64  # the same on every device, because it decides the order of addition
WEIGHT_CONFIGS = [
    triton.Config({"CHANNELS": 64}, num_warps=4),
    triton.Config({"CHANNELS": 128}, num_warps=8),
]


@tuned(WEIGHT_CONFIGS, key=["channels", "TAPS"], tokens="x")
@triton.jit
def weight_gradient_kernel(
    inner, partials, grad, grad_stride, x, stride, weight, bias, initial,
    offsets, order, first_tile, sequences, channels,
    IS_SILU: tl.constexpr, TAPS: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Writes `inner` and row 0 (the bias) and rows 1 to K (the taps) of this lane's partial sums; ROWS >= K + 1."""
    lane = tl.program_id(0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    row = tl.arange(0, ROWS)[:, None]
    sums = tl.zeros((ROWS, CHANNELS), tl.float32)
    for tile in range(lane, tl.load(first_tile + sequences).to(tl.int32), tl.num_programs(0)):
        sequence, start, length, first = find_tile(tile, offsets, order, first_tile, sequences, TOKENS)
        position = first + tl.arange(0, TOKENS)[:, None]
        exists = (position < length) & (channel < channels)
        g = tl.load(grad + (start + position) * grad_stride + channel, mask=exists, other=0.0).to(tl.float32)
        if IS_SILU:
            total = sum_of_taps(
                x, stride, weight, bias, initial, sequence, start, position, exists, channel, channels,
                TOKENS, CHANNELS, TAPS,
            )  # fmt: skip
            share = tl.sigmoid(total)
            g *= share * (1.0 + total * (1.0 - share))
        tl.store(inner + (start + position) * channels + channel, g.to(inner.dtype.element_ty), mask=exists)
        sums += tl.where(row == 0, tl.sum(g, 0)[None, :], 0.0)
        for k in tl.range(TAPS, loop_unroll_factor=4):
            before = position - (TAPS - 1) + k
            values = seen(x, stride, initial, sequence, start, before, exists, channel, channels, TAPS)
            sums += tl.where(row == k + 1, tl.sum(g * values, 0)[None, :], 0.0)
    place = (lane * (TAPS + 1) + row) * channels + channel
    tl.store(partials + place, sums, mask=(row <= TAPS) & (channel < channels))


@triton.jit
def received(
    inner, weight, grad_state, sequence, start, length, position, exists, channel, channels, TAPS: tl.constexpr
):
    """The gradient of the inputs at positions (rows, 1), those before the sequence included, (rows, CHANNELS)."""
    total = tl.zeros_like(position + channel).to(tl.float32)
    for j in tl.range(TAPS, loop_unroll_factor=4):
        tap = tl.load(weight + channel * TAPS + (TAPS - 1 - j), mask=channel < channels, other=0.0).to(tl.float32)
        later = position + j
        is_there = exists & (later >= 0) & (later < length)
        total += tap * tl.load(inner + (start + later) * channels + channel, mask=is_there, other=0.0).to(tl.float32)
    if grad_state is not None:
        i = position - length + (TAPS - 1)
        place = (sequence * channels + channel) * (TAPS - 1) + i
        total += tl.load(grad_state + place, mask=exists & (i >= 0), other=0.0).to(tl.float32)
    return total


@tuned(INPUT_CONFIGS, key=["channels", "TAPS"], tokens="inner")
@triton.jit
def input_gradient_kernel(
    dx, inner, weight, grad_state, offsets, order, first_tile, sequences, channels,
    TAPS: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    if tile >= tl.load(first_tile + sequences):
        return
    sequence, start, length, first = find_tile(tile, offsets, order, first_tile, sequences, TOKENS)
    position = first + tl.arange(0, TOKENS)[:, None]
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    exists = (position < length) & (channel < channels)
    total = received(
        inner, weight, grad_state, sequence, start, length, position, exists, channel, channels, TAPS
    )  # fmt: skip
    tl.store(dx + (start + position) * channels + channel, total.to(dx.dtype.element_ty), mask=exists)


@triton.jit
def state_gradient_kernel(
    dinitial, inner, weight, grad_state, offsets, channels, TAPS: tl.constexpr, CHANNELS: tl.constexpr
):
    sequence = tl.program_id(0).to(tl.int64)
    start = tl.load(offsets + sequence)
    length = tl.load(offsets + sequence + 1) - start
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    exists = channel < channels
    for i in range(TAPS - 1):
        total = received(
            inner, weight, grad_state, sequence, start, length, i - (TAPS - 1), exists, channel, channels, TAPS
        )
        place = (sequence * channels + channel) * (TAPS - 1) + i
        tl.store(dinitial + place, total.to(dinitial.dtype.element_ty), mask=exists)


def weight_gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial: Tensor | None,
    offsets: Tensor,
    is_silu: bool,
) -> tuple[Tensor, Tensor]:
    """The gradient of the activation's input (T, C), and partial sums (LANES, 1 + K, C): bias and taps."""
    channels, taps = weight.shape
    inner = torch.empty_like(x, memory_format=torch.contiguous_format)
    if x.numel() == 0:
        return inner, x.new_zeros((1, taps + 1, channels), dtype=torch.float32)
    partials = x.new_empty((LANES, taps + 1, channels), dtype=torch.float32)
    order, first_tile = tile_schedule(offsets, TOKENS)
    with on_device_of(x):
        weight_gradient_kernel[lambda meta: (LANES, triton.cdiv(channels, meta["CHANNELS"]))](
            inner, partials, grad, grad.stride(0), x, x.stride(0), weight, bias, initial, offsets, order, first_tile,
            len(order), channels, IS_SILU=is_silu, TAPS=taps, ROWS=triton.next_power_of_2(taps + 1), TOKENS=TOKENS,
        )  # fmt: skip
    return inner, partials


def input_gradient(dx: Tensor, inner: Tensor, weight: Tensor, grad_state: Tensor | None, offsets: Tensor) -> None:
    """Writes dx (T, C), contiguous."""
    if dx.numel() == 0:
        return
    channels, taps = weight.shape
    order, first_tile = tile_schedule(offsets, TOKENS)
    with on_device_of(dx):
        input_gradient_kernel[lambda meta: (most_tiles(dx, offsets), triton.cdiv(channels, meta["CHANNELS"]))](
            dx, inner, weight, grad_state, offsets, order, first_tile, len(order), channels, TAPS=taps, TOKENS=TOKENS
        )


def state_gradient(dinitial: Tensor, inner: Tensor, weight: Tensor, grad_state: Tensor | None, offsets: Tensor) -> None:
    """Writes the gradient of the initial state (B, C, K-1), contiguous."""
    if dinitial.numel() == 0:
        return
    sequences, channels, before = dinitial.shape
    with on_device_of(dinitial):
        state_gradient_kernel[(sequences, triton.cdiv(channels, STATE_CHANNELS))](
            dinitial, inner, weight, grad_state, offsets, channels, TAPS=before + 1, CHANNELS=STATE_CHANNELS
        )
