"""The selective scan by the CUDA kernels (csrc/cuda/selective_scan*.cuh): float32 and bfloat16, forward and backward.

A thread owns a channel and goes through one piece of a sequence token by token; the kernels' head comments describe the
tiling, and docs/gpu.md the bounds. No sum uses atomics: the bits are the same at every run. The states kept for a
gradient take 4 N / 16 bytes for each element of u.

A call allocates through torch alone and does not wait, so a CUDA graph can capture it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..cuda import run_kernels
from ..native import native_op
from .native import empty_gradients, register_gradient

KEPT_EVERY = 16  # kept_every of csrc/cuda/selective_scan.h
MOST_STATES = 256
_LARGEST_SHIFT = 9  # pieces of sequences have 512 tokens at most,
_SMALLEST_SHIFT = 6  # and 64 at least
_WANTED_BLOCKS = 1024  # of which an H100 runs 800 at once
MOST_ROWS = 512  # of partial sums of the parameters' gradients


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    offsets: Tensor,
    *,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    if A.shape[1] > MOST_STATES:
        raise RuntimeError(f"backend 'cuda' of selective_scan takes {MOST_STATES} states, not {A.shape[1]}.")
    parameters = (None if x is None else x.float().contiguous() for x in (A, D, delta_bias, initial_state))
    A, D, delta_bias, initial_state = parameters
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    y, state, _ = _forward(*tensors, offsets.contiguous(), delta_softplus, return_state, keep)
    return (y, state) if return_state else y


@native_op("selective_scan_cuda")
def _forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    offsets: Tensor,
    delta_softplus: bool,
    return_state: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the state if asked for, and the states that backward needs if `keep`: one in KEPT_EVERY tokens.

    What is not needed has no elements, and not every one of the kept states is written or read. Arguments are
    checked by the caller; A, D, delta_bias and initial_state are float32 and contiguous.
    """
    y, state, kept = _outputs(u, A, offsets, return_state, keep)
    inputs = (u, delta, A, B, C, D, z, delta_bias, initial_state, offsets)
    _run(
        "selective_scan_forward_cuda",
        inputs,
        delta_softplus,
        kept=kept if keep else None,
        y=y,
        state=state if return_state else None,
    )
    return y, state, kept


def _outputs(u: Tensor, A: Tensor, offsets: Tensor, return_state: bool, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    tokens, channels = u.shape
    states = A.shape[1]
    return (
        u.new_empty(tokens, channels),
        A.new_empty(offsets.shape[0] - 1 if return_state else 0, channels, states),
        A.new_empty(tokens // KEPT_EVERY + 2 if keep else 0, states, channels),
    )


@_forward.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, initial_state, offsets, delta_softplus, return_state, keep):
    return _outputs(u, A, offsets, return_state, keep)


@native_op("selective_scan_backward_cuda")
def _backward(
    grad: Tensor,
    grad_state: Tensor | None,
    kept: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    offsets: Tensor,
    delta_softplus: bool,
) -> list[Tensor]:
    """Gradients of the differentiable inputs that there are, in their order."""
    inputs = (u, delta, A, B, C, D, z, delta_bias, initial_state, offsets)
    gradients = empty_gradients(*inputs[:-1])
    names = ("du", "ddelta", "dA", "dB", "dC", "dD", "dz", "ddelta_bias", "dinitial_state")
    tokens, channels = u.shape
    states = A.shape[1]
    rows = min(items_of_work(tokens, channels, states, offsets.shape[0] - 1)[1], MOST_ROWS)
    _run(
        "selective_scan_backward_cuda",
        inputs,
        delta_softplus,
        rows=rows,
        grad=grad,
        grad_state=grad_state,
        kept=kept,
        token_partials=A.new_empty(_groups(channels, states), tokens, 2, states),
        parameter_partials=A.new_empty(rows, states + 2, channels),
        **dict(zip(names, gradients, strict=True)),
    )
    return [g for g in gradients if g is not None]


@_backward.register_fake
def _(grad, grad_state, kept, u, delta, A, B, C, D, z, delta_bias, initial_state, offsets, delta_softplus):
    return [g for g in empty_gradients(u, delta, A, B, C, D, z, delta_bias, initial_state) if g is not None]


def block_threads(states: int) -> int:
    """Threads of a block, each a channel: as in csrc/cuda/selective_scan.h."""
    return 128 if states <= 64 else 64 if states <= 128 else 32


def _groups(channels: int, states: int) -> int:
    """Blocks that a token's channels take."""
    return -(-channels // block_threads(states))


def items_of_work(tokens: int, channels: int, states: int, sequences: int) -> tuple[int, int]:
    """Pieces of sequences have 2**shift tokens: (shift, number of items of work).

    In pieces a token's exponentials are computed twice, so pieces are as long as they can be for enough blocks.
    """
    groups, shift = _groups(channels, states), _LARGEST_SHIFT
    while shift > _SMALLEST_SHIFT and ((tokens >> shift) + sequences) * groups < _WANTED_BLOCKS:
        shift -= 1
    return shift, (tokens >> shift) + sequences


def _run(
    function: str, inputs: tuple[Tensor | None, ...], softplus: bool, *, rows: int = 0, **others: Tensor | None
) -> None:
    """Runs the kernels; sizes and tensors in the order of read_scan (csrc/cuda/selective_scan.h)."""
    u, delta, A, B, C, D, z, delta_bias, initial_state, offsets = inputs
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


register_gradient(_forward, _backward)
