"""Cross entropy over a catalogue in C++ (csrc/cpu/linear_cross_entropy.cpp): fp32 on CPU.

The forward pass computes the gradients too, from logits computed once: a batch of tokens at a time keeps one float a
candidate and token, less than 256 MB for up to 4 million items.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import remember
from ..native import call, native_op


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, target: Tensor, *, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    if reduction == "none":
        return _losses(hidden.detach(), weight.detach(), target, ignore_index)
    return mean_loss(hidden, weight, target, ignore_index=ignore_index)


def mean_loss(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None = None,
    ids: Tensor | None = None,
    *,
    ignore_index: int = -100,
) -> Tensor:
    """Mean over the tokens that count of `logsumexp(hidden weight^T + bias) - its target entry`.

    ids: int64 (V,); a candidate with the id of a token's target is left out, the target itself is not.
    """
    wanted = (x.requires_grad and torch.is_grad_enabled() for x in (hidden, weight))
    return _mean_loss(hidden, weight, target, bias, ids, ignore_index, *wanted)[0]


def _counted(target: Tensor, ignore_index: int) -> Tensor | None:
    """The tokens that count, None for all of them."""

    def find() -> Tensor | None:
        counted = (target != ignore_index).nonzero().squeeze(1)
        return counted if len(counted) < len(target) else None

    return remember(target, f"counted {ignore_index}", find)


def _run(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    ids: Tensor | None,
    gradients: tuple[Tensor | None, Tensor | None],
) -> Tensor:
    """Each token's loss; fills what is not None of the mean's gradients to `hidden` and `weight`."""
    losses = hidden.new_empty(len(target))
    token_ids = None if ids is None else ids.index_select(0, target)
    arguments = (losses, *gradients, hidden, weight, target, bias, token_ids, ids)
    call("linear_cross_entropy", *arguments, share=1 / max(1, len(target)))
    return losses


@native_op("linear_cross_entropy")
def _mean_loss(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    ids: Tensor | None,
    ignore_index: int,
    of_hidden: bool,
    of_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean loss and its gradients to `hidden` and `weight`, empty where they are not asked for."""
    counted = _counted(target, ignore_index)
    states, targets = (hidden, target) if counted is None else (x.index_select(0, counted) for x in (hidden, target))
    g_hidden = states.new_empty(states.shape) if of_hidden else None
    g_weight = weight.new_empty(weight.shape) if of_weight else None
    losses = _run(states, weight, targets, bias, ids, (g_hidden, g_weight))
    loss = losses.sum() / max(1, len(losses))
    if counted is not None and of_hidden:
        g_hidden = hidden.new_zeros(hidden.shape).index_copy_(0, counted, g_hidden)
    return loss, *(hidden.new_empty(0) if g is None else g for g in (g_hidden, g_weight))


@_mean_loss.register_fake
def _(hidden, weight, target, bias, ids, ignore_index, of_hidden, of_weight):
    gradients = (
        x.new_empty(x.shape if is_wanted else 0) for x, is_wanted in ((hidden, of_hidden), (weight, of_weight))
    )
    return hidden.new_empty(()), *gradients


def _setup_context(ctx, inputs, output) -> None:
    *_, ctx.of_hidden, ctx.of_weight = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # else zeros are made for the gradients' own gradients
    ctx.save_for_backward(*output[1:])


def _differentiate(ctx, grad_loss, *_):
    wanted = (ctx.of_hidden, ctx.of_weight)
    # Sparing the factor 1, which loss.backward() sends, spares a pass over (V, d) and as much memory.
    is_one = type(grad_loss) is Tensor and grad_loss.item() == 1
    scaled = (g if is_one else g * grad_loss for g in ctx.saved_tensors)
    gradients = (g if is_wanted else None for g, is_wanted in zip(scaled, wanted, strict=True))
    return *gradients, None, None, None, None, None, None


_mean_loss.register_autograd(_differentiate, setup_context=_setup_context)


@native_op("linear_cross_entropy_losses")
def _losses(hidden: Tensor, weight: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Each token's loss (T,), 0 where it does not count."""
    counted = _counted(target, ignore_index)
    if counted is None:
        return _run(hidden, weight, target, None, None, (None, None))
    losses = _run(hidden.index_select(0, counted), weight, target.index_select(0, counted), None, None, (None, None))
    return hidden.new_zeros(len(target)).index_copy_(0, counted, losses)


@_losses.register_fake
def _(hidden, weight, target, ignore_index):
    return hidden.new_empty(target.shape)
