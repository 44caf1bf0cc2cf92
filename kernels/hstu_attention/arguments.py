"""What the doors of HSTU's attention and of its whole block ask of the arguments that they have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import are_values_hidden, check_offsets, check_same, check_tensor, host_longest


def check_sequences(
    x: Tensor,
    name: str,
    offsets: Tensor,
    max_len: int,
    position_bias: Tensor | None,
    time_bias: Tensor | None,
    timestamps: Tensor | None,
) -> None:
    """Offsets, tables and timestamps fit the tokens of `x`, which is called `name`; `max_len` is checked already.

    TypeError or ValueError, which name the argument, if not.
    """
    check_offsets(offsets, x)
    if position_bias is not None:
        check_tensor(position_bias, "position_bias", (2 * max_len - 1,))
        check_same(x, name, position_bias=position_bias)
    if time_bias is not None:
        check_tensor(time_bias, "time_bias", (None,))
        check_same(x, name, time_bias=time_bias)
        check_tensor(timestamps, "timestamps", (x.shape[0],), (torch.int64,))
        check_same(x, name, dtype=False, timestamps=timestamps)


def check_longest(offsets: Tensor, max_len: int) -> None:
    """ValueError if a sequence has more than `max_len` tokens, where that can be known."""
    if not are_values_hidden(offsets) and host_longest(offsets) > max_len:
        raise ValueError(f"max_len is {max_len}, but a sequence has {host_longest(offsets)} tokens.")
