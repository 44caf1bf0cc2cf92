"""Cross entropy over a catalogue in C++ (csrc/cpu/linear_cross_entropy.cpp): fp32 on CPU.

The forward pass also computes the gradients, from logits that are computed once: a batch of tokens at a time keeps one
float for each candidate and token, less than 256 MB for up to 4 million items.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..memory import remember
from ..native import call, native_op, uninitialised
from ..tensors import do_lie_below


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, target: Tensor, *, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    if reduction == "none":
        return _losses(hidden.detach(), weight.detach(), target, ignore_index)
    return _mean_loss(hidden, weight, target, ignore_index, *wanted_gradients(hidden, weight))[0]


def wanted_gradients(hidden: Tensor, weight: Tensor) -> tuple[bool, bool]:
    """Whether autograd will need the gradient of each."""
    is_on = torch.is_grad_enabled()
    return is_on and hidden.requires_grad, is_on and weight.requires_grad


def _counted(target: Tensor, items: int, ignore_index: int) -> Tensor | None:
    """The tokens that count, None for all of them."""
    if not 0 <= ignore_index < items and do_lie_below(target, items, None):
        return None

    def find() -> Tensor | None:
        counted = (target != ignore_index).nonzero().squeeze(1)
        return counted if len(counted) < len(target) else None

    return remember(target, f"counted {ignore_index}", find)


def mean_loss(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor | None,
    bias: Tensor | None,
    ids: tuple[Tensor | None, Tensor | None],
    wanted: tuple[bool, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Mean of `logsumexp(hidden weight^T + bias) - its target entry`, and its gradients of `hidden` and `weight`.

    target: int64 (T,); None: token t's is item t.
    ids: of the tokens' targets and of the items, int64 (T,) and (V,); a candidate with the id of a token's target is
    left out, the target itself is not. `wanted`: which gradients are; the others are None.
    """
    of_hidden, of_weight = wanted
    loss = hidden.new_empty(())
    results = (loss, uninitialised(hidden) if of_hidden else None, uninitialised(weight) if of_weight else None)
    call("linear_cross_entropy", None, *results, hidden, weight, target, bias, *ids, 1 / (hidden.shape[0] or 1))
    return results


@native_op("linear_cross_entropy")
def _mean_loss(
    hidden: Tensor, weight: Tensor, target: Tensor, ignore_index: int, of_hidden: bool, of_weight: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean loss and its gradients of `hidden` and `weight`, None where they are not asked for."""
    counted = _counted(target, weight.shape[0], ignore_index)
    states, targets = (hidden, target) if counted is None else (x.index_select(0, counted) for x in (hidden, target))
    loss, g_hidden, g_weight = mean_loss(states, weight, targets, None, (None, None), (of_hidden, of_weight))
    if counted is not None and of_hidden:
        g_hidden = hidden.new_zeros(hidden.shape).index_copy_(0, counted, g_hidden)
    return loss, g_hidden, g_weight


@_mean_loss.register_fake
def _(hidden, weight, target, ignore_index, of_hidden, of_weight):
    return fake_loss(hidden, weight, of_hidden, of_weight)


def fake_loss(
    hidden: Tensor, weight: Tensor, of_hidden: bool, of_weight: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """What an operator that gives a mean loss and its gradients returns, without values."""
    given = ((hidden, of_hidden), (weight, of_weight))
    return hidden.new_empty(()), *(x.new_empty(x.shape) if is_wanted else None for x, is_wanted in given)


def save_gradients(ctx, inputs, output) -> None:
    """For such an operator, whose last two inputs say which gradients are wanted."""
    *_, ctx.of_hidden, ctx.of_weight = inputs
    ctx.count = len(inputs)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # otherwise zeros are made for the gradients of the gradients
    ctx.save_for_backward(*output[1:])


def differentiate_loss(ctx, grad_loss, *_):
    """The saved gradients times the loss's own."""
    wanted = (ctx.of_hidden, ctx.of_weight)
    # loss.backward() sends the factor 1: leaving it out spares a pass over (V, d) and as much memory.
    is_one = type(grad_loss) is Tensor and grad_loss.item() == 1
    scaled = (g if is_one else g * grad_loss for g in ctx.saved_tensors)
    gradients = (g if is_wanted else None for g, is_wanted in zip(scaled, wanted, strict=True))
    return *gradients, *[None] * (ctx.count - 2)


_mean_loss.register_autograd(differentiate_loss, setup_context=save_gradients)


@native_op("linear_cross_entropy_losses")
def _losses(hidden: Tensor, weight: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Each token's loss (T,), 0 where it does not count."""
    counted = _counted(target, weight.shape[0], ignore_index)
    states, targets = (hidden, target) if counted is None else (x.index_select(0, counted) for x in (hidden, target))
    losses = hidden.new_empty(targets.shape)
    call("linear_cross_entropy", losses, *[None] * 3, states, weight, targets, *[None] * 3, 1.0)
    return losses if counted is None else hidden.new_zeros(target.shape).index_copy_(0, counted, losses)


@_losses.register_fake
def _(hidden, weight, target, ignore_index):
    return hidden.new_empty(target.shape)
