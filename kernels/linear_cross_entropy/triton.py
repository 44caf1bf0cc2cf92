"""Cross entropy over a catalogue by Triton kernels: fp32 and bf16, accumulated in fp32.

The bits are the same at every run on one kind of GPU (the slices suit its multiprocessors), as long as the autotuner's
choice stands, which it keeps on disk.

The gradient of `hidden` (triton_forward.py) costs one product more than the loss. Beside inputs and gradients, memory
of O(T d) bytes is needed: the tokens in the order of their targets, and the partial sums of a few slices of the
catalogue.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from . import triton_backward
from .triton_forward import slice_softmax
from .triton_tokens import arrange, join


def forward(*inputs: Any) -> tuple[Tensor | None, ...]:
    hidden, weight, target, bias, ids, ignore_index, of_hidden = inputs
    tokens = arrange(hidden, weight, target, bias, ids, ignore_index)
    share = tokens.count.clamp(min=1).float().reciprocal()
    losses_, lse, gradient = join(tokens, weight, slice_softmax(tokens, weight, bias, ids, of_hidden), share)
    return losses_.sum() * share, gradient, share, lse, tokens.states, tokens.wanted, tokens.count


def losses(hidden: Tensor, weight: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    tokens = arrange(hidden, weight, target, None, None, ignore_index)
    return join(tokens, weight, slice_softmax(tokens, weight, None, None, False), tokens.count)[0]


def backward(*inputs: Any) -> Tensor:
    scale, lse, states, wanted, count, weight, bias, ids = inputs
    return triton_backward.weight_gradient(states, lse, wanted, count, weight, bias, ids, scale)
