"""Cross entropy over a catalogue by Triton kernels: fp32 and bf16, accumulated in fp32.

The bits are the same at every run on one kind of GPU (the slices suit its multiprocessors), as long as the autotuner's
choice stands, which it keeps on disk.

The forward pass also computes the gradient of `hidden` (triton_forward.py), which costs one product more than the loss.
The gradient of `weight` is computed in the backward pass (triton_backward.py), where the incoming gradient is known, so
that (V, d) is written once. Beside inputs and gradients, memory of O(T d) bytes is needed: the tokens in the order of
their targets, and the partial sums of a few slices of the catalogue. Vectors wider than 512 (fp32: 128) go to "eager".
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..native import native_op
from . import eager

WIDEST = {torch.bfloat16: 512, torch.float32: 128}
"""Widest vectors: 64 of 512 sums take half of a multiprocessor's registers; fp32 ones are multiplied from registers."""
_PADDED = 128  # as triton_tokens.PADDED, which cannot be imported without triton


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, target: Tensor, *, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    if hidden.shape[1] > WIDEST[hidden.dtype]:
        return eager.linear_cross_entropy(hidden, weight, target, ignore_index=ignore_index, reduction=reduction)
    if reduction == "none":
        return _losses(hidden.detach(), weight.detach(), target, ignore_index)
    return mean_loss(hidden, weight, target, ignore_index=ignore_index)


def mean_loss(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor | None,
    bias: Tensor | None = None,
    ids: Tensor | None = None,
    *,
    ignore_index: int = -100,
) -> Tensor:
    """Mean over the tokens that count of `logsumexp(hidden weight^T + bias) - its target entry`; d <= WIDEST.

    target: int64 (T,), or None: token i's is item i, and T <= V. bias: float32 (V,), without a gradient.
    ids: int64 (V,); a candidate with the id of a token's target is left out, the target itself is not.
    """
    of_hidden = hidden.requires_grad and torch.is_grad_enabled()
    return _mean_loss(hidden, weight, target, bias, ids, ignore_index, of_hidden)[0]


@native_op("linear_cross_entropy_triton")
def _mean_loss(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor | None,
    bias: Tensor | None,
    ids: Tensor | None,
    ignore_index: int,
    of_hidden: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The mean loss, its gradient of `hidden` (empty unless asked for), and for the backward pass: the share of a
    token, logsumexp, states, targets and the number that counts, in triton_tokens.py's order."""
    from .triton_forward import slice_softmax
    from .triton_tokens import arrange, join

    tokens = arrange(hidden, weight, target, bias, ids, ignore_index)
    share = tokens.count.clamp(min=1).float().reciprocal()
    losses, lse, gradient = join(tokens, weight, slice_softmax(tokens, weight, bias, ids, of_hidden), share)
    gradient = hidden.new_empty(0) if gradient is None else gradient
    return losses.sum() * share, gradient, share, lse, tokens.states, tokens.wanted, tokens.count


@_mean_loss.register_fake
def _(hidden, weight, target, bias, ids, ignore_index, of_hidden):
    total, width = hidden.shape
    places = (total + _PADDED - 1) // _PADDED * _PADDED
    scalar = hidden.new_empty((), dtype=torch.float32)
    return (
        scalar,
        hidden.new_empty((total, width) if of_hidden else 0),
        torch.empty_like(scalar),
        hidden.new_empty(places, dtype=torch.float32),
        hidden.new_empty(places, _block_of(width)),
        hidden.new_empty(places, dtype=torch.int32),
        hidden.new_empty((), dtype=torch.int64),
    )


def _block_of(width: int) -> int:
    """As triton_catalogue.block_of."""
    return max(16, 1 << (int(width) - 1).bit_length())


def _setup_context(ctx, inputs, output) -> None:
    _, weight, _, bias, ids, _, ctx.of_hidden = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    kept = (weight, bias, ids, *output[2:]) if ctx.needs_input_grad[1] else (None,) * 8
    ctx.save_for_backward(output[1] if ctx.of_hidden else None, *kept)


def _differentiate(ctx, grad_loss, *_):
    g_hidden, weight, bias, ids, share, *tokens = ctx.saved_tensors
    if g_hidden is not None:
        g_hidden = g_hidden * grad_loss.to(g_hidden.dtype)
    g_weight = None
    if weight is not None:
        g_weight = _weight_gradient(grad_loss * share, *tokens, weight, bias, ids)
    return g_hidden, g_weight, None, None, None, None, None


_mean_loss.register_autograd(_differentiate, setup_context=_setup_context)


@native_op("linear_cross_entropy_triton_backward")
def _weight_gradient(
    scale: Tensor,
    lse: Tensor,
    states: Tensor,
    wanted: Tensor,
    count: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ids: Tensor | None,
) -> Tensor:
    from .triton_backward import weight_gradient

    return weight_gradient(states, lse, wanted, count, weight, bias, ids, scale)


@_weight_gradient.register_fake
def _(scale, lse, states, wanted, count, weight, bias, ids):
    return weight.new_empty(weight.shape)


@native_op("linear_cross_entropy_triton_losses")
def _losses(hidden: Tensor, weight: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Each token's loss (T,), 0 where it does not count."""
    from .triton_forward import slice_softmax
    from .triton_tokens import arrange, join

    tokens = arrange(hidden, weight, target, None, None, ignore_index)
    return join(tokens, weight, slice_softmax(tokens, weight, None, None, False), tokens.count)[0]


@_losses.register_fake
def _(hidden, weight, target, ignore_index):
    return hidden.new_empty(target.shape, dtype=torch.float32)
