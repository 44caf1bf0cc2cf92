"""Cross entropy over a catalogue in C++ (csrc/cpu/linear_cross_entropy.cpp): fp32 on CPU.

A batch of tokens at a time keeps one float for each candidate and token, less than 256 MB for up to 4 million items.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..memory import remember
from ..native import call
from .operator import losses_of_tokens, outputs


def forward(*inputs: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
    hidden, weight, target, bias, ids, ignore_index, *wanted = inputs
    counted = None if target is None else _counted(target, ignore_index)
    states = hidden
    if counted is not None:
        states, target = (x.index_select(0, counted) for x in (hidden, target))
    loss, g_hidden, g_weight = results = outputs(states, weight, target, bias, ids, ignore_index, *wanted)
    share = 1 / (states.shape[0] or 1)
    call("linear_cross_entropy", None, *results, states, weight, target, bias, ids, ids, share)
    if counted is None or g_hidden is None:
        return results
    return loss, hidden.new_zeros(hidden.shape).index_copy_(0, counted, g_hidden), g_weight


def losses(hidden: Tensor, weight: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    counted = _counted(target, ignore_index)
    states, targets = (hidden, target) if counted is None else (x.index_select(0, counted) for x in (hidden, target))
    found = losses_of_tokens(states, weight, targets, ignore_index)
    call("linear_cross_entropy", found, *[None] * 3, states, weight, targets, *[None] * 3, 1.0)
    return found if counted is None else hidden.new_zeros(target.shape).index_copy_(0, counted, found)


def _counted(target: Tensor, ignore_index: int) -> Tensor | None:
    """The tokens that count, None for all of them."""

    def find() -> Tensor | None:
        counted = (target != ignore_index).nonzero().squeeze(1)
        return counted if len(counted) < len(target) else None

    return remember(target, f"counted {ignore_index}", find)
