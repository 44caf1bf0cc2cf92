"""The selective scan by the CUDA kernels (csrc/cuda/selective_scan*.cuh): float32 and bfloat16, forward and backward.

A thread owns one or two channels and goes through one piece of a sequence token by token; the kernels' head comments
describe the tiling, and docs/gpu.md the bounds. No sum uses atomics: the bits are the same at every run. The states
kept for a gradient take 4 N / 8 bytes for each element of u, and not every one of them is written or read. A, D,
delta_bias and initial_state are float32 and contiguous.

A call allocates through torch alone and does not wait, so a CUDA graph can capture it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..cuda import run_kernels
from .operator import gradients, outputs

_LARGEST_SHIFT = 9  # pieces of sequences have 512 tokens at most,
_SMALLEST_SHIFT = 6  # and 64 at least
_WANTED_BLOCKS = 1024  # with one channel a thread; an H100 runs 800 of them at once, or 660 with two channels a thread
MOST_ROWS = 512  # of partial sums of the parameters' gradients


def forward(*inputs: Any) -> tuple[Tensor | None, ...]:
    results = y, state, kept, _ = outputs(*inputs, "cuda")
    _run("selective_scan_forward_cuda", inputs[:-2], kept=kept, y=y, state=state)
    return results


def backward(grad_y: Tensor, grad_state: Tensor | None, *others: Any) -> tuple[Tensor | None, ...]:
    kept, _, *inputs = others
    grad_state = None if grad_state is None else grad_state.contiguous()
    found = gradients(grad_y, grad_state, *others)
    names = ("du", "ddelta", "dA", "dB", "dC", "dD", "dz", "ddelta_bias", "dinitial_state")
    u, A, offsets = inputs[0], inputs[2], inputs[8]
    tokens, channels = u.shape
    states = A.shape[1]
    rows = min(items_of_work(tokens, channels, states, offsets.shape[0] - 1)[1], MOST_ROWS)
    _run(
        "selective_scan_backward_cuda",
        inputs,
        rows=rows,
        grad=grad_y.contiguous(),
        grad_state=grad_state,
        kept=kept,
        token_partials=A.new_empty(thread_groups(channels, states), tokens, 2, states),
        parameter_partials=A.new_empty(rows, states + 2, channels),
        **dict(zip(names, found, strict=True)),
    )
    return found


def block_threads(states: int) -> int:
    """Threads of a block: as in csrc/cuda/selective_scan.h."""
    return 128 if states <= 64 else 64 if states <= 128 else 32


def thread_channels(states: int, channels: int) -> int:
    """Channels that a thread of scan_forward and scan_backward owns: as in csrc/cuda/selective_scan.h."""
    return 2 if states <= 16 and -(-channels // 128) % 2 == 0 else 1


def thread_groups(channels: int, states: int) -> int:
    """Blocks of scan_forward and scan_backward that a token's channels take."""
    return -(-channels // (block_threads(states) * thread_channels(states, channels)))


def items_of_work(tokens: int, channels: int, states: int, sequences: int) -> tuple[int, int]:
    """Pieces of sequences have 2**shift tokens: (shift, number of items of work).

    In pieces a token's exponentials are computed twice, so pieces are as long as they can be for enough blocks: those
    of scan_ends, whose threads own a channel each.
    """
    groups, shift = -(-channels // block_threads(states)), _LARGEST_SHIFT
    while shift > _SMALLEST_SHIFT and ((tokens >> shift) + sequences) * groups < _WANTED_BLOCKS:
        shift -= 1
    return shift, (tokens >> shift) + sequences


def _run(function: str, inputs: Sequence[Any], *, rows: int = 0, **others: Tensor | None) -> None:
    """Runs the kernels; sizes and tensors in the order of read_scan (csrc/cuda/selective_scan.h)."""
    u, delta, A, B, C, D, z, delta_bias, offsets, softplus, initial_state = inputs
    tokens, channels = u.shape
    states = A.shape[1]
    shift, items = items_of_work(tokens, channels, states, offsets.shape[0] - 1)
    is_split = tokens >> shift > 0
    by_token = (u, delta, B, C, z, others.get("grad"))
    strides = (0 if x is None else x.stride(0) for x in by_token)
    sizes = (tokens, channels, states, offsets.shape[0] - 1, shift, softplus, rows, u.dtype == torch.bfloat16, *strides)
    outputs = ("y", "state", "token_partials", "parameter_partials")
    gradients = ("du", "ddelta", "dB", "dC", "dz", "dA", "dD", "ddelta_bias", "dinitial_state")
    tensors = (
        *by_token,
        *(A, D, delta_bias, initial_state, others.get("grad_state"), offsets, others["kept"]),
        A.new_empty(items, states, channels) if is_split else None,
        A.new_empty(items, channels) if is_split else None,
        *(others.get(name) for name in (*outputs, *gradients)),
    )
    run_kernels(function, [int(x) for x in sizes], tensors, u.device)
