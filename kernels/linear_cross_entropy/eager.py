"""Plain torch: some rows of logits at a time, and their gradient while they are still in the cache.

The gradient is computed in the forward pass, so logits are computed once and never kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

# The logits of a chunk should stay in the L3 cache, and with fewer than about 128 rows the products slow down.
_CACHE_BYTES = 8 << 20
_ENOUGH_ROWS = 128
_MOST_BYTES = 256 << 20

Adjust = Callable[[Tensor, slice], None]


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, target: Tensor, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    counted = (target != ignore_index).nonzero().squeeze(1)
    tokens = len(target)
    if len(counted) < tokens:
        hidden, target = hidden.index_select(0, counted), target.index_select(0, counted)
    if reduction == "mean":
        return mean_softmax_loss(hidden, weight, target)
    losses = _losses(hidden, weight, target, None)
    return losses.new_zeros(tokens).index_copy_(0, counted, losses) if len(losses) < tokens else losses


def mean_softmax_loss(hidden: Tensor, weight: Tensor, target: Tensor, adjust: Adjust | None = None) -> Tensor:
    """Mean over rows of `logsumexp(hidden weight^T) - its target entry`; zero for no rows.

    `adjust(logits, rows)` may change the logits (len(rows), V) of some rows in place by what has no gradient: add
    constants, or leave candidates out with -inf.
    """
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        return _MeanLoss.apply(hidden, weight, target, adjust)
    return _losses(hidden, weight, target, adjust).sum() / max(1, len(target))


class _MeanLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, target, adjust):
        share = 1 / max(1, len(target))
        of_hidden, of_weight = ctx.needs_input_grad[:2]
        g_hidden = torch.empty_like(hidden) if of_hidden else None
        g_weight = torch.zeros_like(weight, dtype=_sum_dtype(weight)) if of_weight else None
        loss = hidden.new_zeros((), dtype=_sum_dtype(hidden))
        for rows, logits in _logits(hidden, weight, adjust):
            losses, probabilities = _softmax_(logits, target[rows])
            loss += losses.sum()
            wanted = target[rows, None]
            errors = probabilities.scatter_(1, wanted, probabilities.gather(1, wanted) - 1).to(hidden.dtype)
            if of_hidden:
                torch.addmm(g_hidden[rows], errors, weight, beta=0, alpha=share, out=g_hidden[rows])
            if of_weight:
                _add_product(g_weight, errors.t(), hidden[rows], share)
        ctx.save_for_backward(g_hidden, None if g_weight is None else g_weight.to(weight.dtype))
        return loss * share

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_loss):
        if grad_loss.is_cpu and grad_loss.item() == 1:  # spares a pass over (V, d)
            return *ctx.saved_tensors, None, None
        return *(None if g is None else g * grad_loss.to(g.dtype) for g in ctx.saved_tensors), None, None


def _losses(hidden: Tensor, weight: Tensor, target: Tensor, adjust: Adjust | None) -> Tensor:
    """Each row's loss (T,), without a gradient."""
    losses = hidden.new_empty(len(target), dtype=_sum_dtype(hidden))
    for rows, logits in _logits(hidden.detach(), weight.detach(), adjust):
        losses[rows], _ = _softmax_(logits, target[rows])
    return losses


def _logits(hidden: Tensor, weight: Tensor, adjust: Adjust | None) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of rows and their logits, float32 at least, all in one buffer."""
    dtype = _sum_dtype(hidden)
    row_bytes = max(1, len(weight)) * dtype.itemsize
    cached = (_CACHE_BYTES if hidden.is_cpu else _MOST_BYTES) // row_bytes
    size = max(1, min(max(cached, _ENOUGH_ROWS), _MOST_BYTES // row_bytes, len(hidden)))
    buffer = hidden.new_empty(size, len(weight), dtype=dtype)
    for start in range(0, len(hidden), size):
        rows = slice(start, min(start + size, len(hidden)))
        logits = buffer[: rows.stop - start]
        if dtype == hidden.dtype:
            torch.mm(hidden[rows], weight.t(), out=logits)
        else:
            logits.copy_(hidden[rows] @ weight.t())
        if adjust is not None:
            adjust(logits, rows)
        yield rows, logits


def _softmax_(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's loss and probabilities, which overwrite the logits."""
    wanted = logits.gather(1, target[:, None]).squeeze(1)
    largest = logits.amax(1)
    # On CPU torch's softmax works row by row, so it may overwrite its input, and a row stays in the L1 or L2 cache.
    probabilities = torch.softmax(logits, 1, out=logits) if logits.is_cpu else torch.softmax(logits, 1)
    # The largest probability is 1 / sum(exp(logits - largest)), and unlike the target's it cannot underflow.
    return largest - probabilities.amax(1).log() - wanted, probabilities


def _add_product(total: Tensor, a: Tensor, b: Tensor, factor: float) -> None:
    if total.dtype == a.dtype:
        total.addmm_(a, b, alpha=factor)
    else:
        total.add_(a @ b, alpha=factor)


def _sum_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
