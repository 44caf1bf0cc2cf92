"""What the compiled cross entropies over a catalogue have in common; info_nce is one of them.

Each has one kernel for the mean, which computes gradients in its forward pass: "native" both, from logits that are
computed once; "triton" that of `hidden`, and that of `weight` in the backward pass, where the incoming gradient is
known, so that (V, d) is written once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..operator import SINGLE, SINGLE_AND_BF16, Kernel, declare
from ..results import uninitialised
from ..tiles import block_of
from . import eager, reference

WIDEST = {torch.bfloat16: 512, torch.float32: 128}
"""Vectors that "triton" takes: 64 of 512 sums take half of a multiprocessor's registers, and fp32 ones are multiplied
from registers. Wider ones are left to plain torch."""
PADDED = 128
"""Tokens are padded to whole tiles of any configuration of "triton"."""


def outputs(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor | None,
    bias: Tensor | None,
    ids: Tensor | None,
    ignore_index: int,
    of_hidden: bool,
    of_weight: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The mean loss and its gradients of `hidden` and `weight`, where they are asked for."""
    loss = hidden.new_empty(())
    return loss, uninitialised(hidden) if of_hidden else None, uninitialised(weight) if of_weight else None


def outputs_of_triton(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor | None,
    bias: Tensor | None,
    ids: Tensor | None,
    ignore_index: int,
    of_hidden: bool,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The mean loss, its gradient of `hidden` if asked for, and for the backward pass: the share of a token, logsumexp,
    states, targets and the number that counts, in triton_tokens.py's order."""
    tokens, width = hidden.shape
    places = padded(tokens)
    return (
        hidden.new_empty((), dtype=torch.float32),
        hidden.new_empty(tokens, width) if of_hidden else None,
        hidden.new_empty((), dtype=torch.float32),
        hidden.new_empty(places, dtype=torch.float32),
        hidden.new_empty(places, block_of(width)),
        hidden.new_empty(places, dtype=torch.int32),
        hidden.new_empty((), dtype=torch.int64),
    )


def padded(tokens: int) -> int:
    """The multiple of PADDED that so many tokens fill."""
    return (tokens + PADDED - 1) // PADDED * PADDED


def losses_of_tokens(hidden: Tensor, weight: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Each token's loss (T,), 0 where it does not count."""
    return hidden.new_empty(target.shape, dtype=torch.float32)


def weight_gradient(
    scale: Tensor,
    lse: Tensor,
    states: Tensor,
    wanted: Tensor,
    count: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ids: Tensor | None,
) -> Tensor:
    return uninitialised(weight)


_LOSSES = Kernel("linear_cross_entropy_losses", __package__, losses_of_tokens, function="losses")
_WEIGHT_GRADIENT = Kernel("linear_cross_entropy_backward", __package__, weight_gradient, function="backward")


def _times(gradient: Tensor | None, factor: Tensor) -> Tensor | None:
    # loss.backward() sends the factor 1: leaving it out spares a pass over (V, d) and as much memory.
    if gradient is None or (type(factor) is Tensor and factor.is_cpu and factor.item() == 1):
        return gradient
    return gradient * factor.to(gradient.dtype)


def _differentiate(
    grad_loss: Tensor, g_hidden: Tensor | None, g_weight: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    return _times(g_hidden, grad_loss), _times(g_weight, grad_loss)


def _differentiate_triton(
    grad_loss: Tensor,
    g_hidden: Tensor | None,
    share: Tensor,
    lse: Tensor,
    states: Tensor,
    wanted: Tensor,
    count: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ids: Tensor | None,
    needs_hidden: bool,
    needs_weight: bool,
    backend: str,
) -> tuple[Tensor | None, Tensor | None]:
    of_weight = None
    if needs_weight:
        kept = (lse, states, wanted, count, weight, bias, ids)
        of_weight = _WEIGHT_GRADIENT(backend, grad_loss * share, *kept)
    return g_hidden * grad_loss.to(g_hidden.dtype) if needs_hidden else None, of_weight


_BOTH = Kernel(
    "linear_cross_entropy",
    __package__,
    outputs,
    results=("loss",),
    kept=("g_hidden", "g_weight"),
    differentiate=_differentiate,
    of=("hidden", "weight"),
)
_ONE = Kernel(
    "linear_cross_entropy_triton",
    __package__,
    outputs_of_triton,
    results=("loss",),
    kept=("g_hidden", "share", "lse", "states", "wanted", "count"),
    differentiate=_differentiate_triton,
    of=("hidden", "weight"),
)


def mean_loss(
    backend: str,
    hidden: Tensor,
    weight: Tensor,
    target: Tensor | None,
    bias: Tensor | None = None,
    ids: Tensor | None = None,
    ignore_index: int = -100,
) -> Tensor:
    """Mean over the tokens that count of `logsumexp(hidden weight^T + bias) - its target entry`.

    target: int64 (T,), or None: token i's is item i, and T <= V. bias: float32 (V,), without a gradient.
    ids: int64 (V,), with `target` None; a candidate with the id of a token's target is left out, the target itself is
    not.
    """
    is_on = torch.is_grad_enabled()
    inputs = (hidden, weight, target, bias, ids, ignore_index, is_on and hidden.requires_grad)
    if backend == "native":
        return _BOTH(backend, *inputs, is_on and weight.requires_grad)
    return _ONE(backend, *inputs)


def _run(backend: str, hidden: Tensor, weight: Tensor, target: Tensor, ignore_index: int, reduction: str) -> Tensor:
    if backend == "triton" and hidden.shape[1] > WIDEST[hidden.dtype]:
        return eager.linear_cross_entropy(hidden, weight, target, ignore_index, reduction)
    if reduction == "none":
        return _LOSSES(backend, hidden.detach(), weight.detach(), target, ignore_index)
    return mean_loss(backend, hidden, weight, target, ignore_index=ignore_index)


LINEAR_CROSS_ENTROPY = declare(
    "linear_cross_entropy",
    _run,
    {"native": SINGLE, "triton": SINGLE_AND_BF16},
    reference=reference.linear_cross_entropy,
    eager=eager.linear_cross_entropy,
)
