"""Between packed (T, ...) and padded (B, L, ...) sequences."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def pad(x: Tensor, offsets: Tensor, length: int | None = None) -> Tensor:
    """Packed (T, ...) with offsets int64 (B+1,) -> (B, L, ...), zeros behind each sequence; L: the longest one's.

    A `length` above the longest pads further, as a module of fixed length does.
    """
    lengths = offsets.diff().tolist()
    padded = pad_sequence(list(x.split(lengths)), batch_first=True)
    if length is None or length == padded.shape[1]:
        return padded
    more = padded.new_zeros(len(lengths), length - padded.shape[1], *x.shape[1:])
    return torch.cat([padded, more], dim=1)


def unpad(x: Tensor, lengths: Tensor) -> Tensor:
    """(B, L, ...) -> the first `lengths[b]` tokens of each sequence, packed (T, ...)."""
    return x[valid(x, lengths)]


def valid(x: Tensor, lengths: Tensor) -> Tensor:
    """Bool (B, L): whether a position of x (B, L, ...) is a token."""
    return torch.arange(x.shape[1], device=x.device) < lengths[:, None]


def zero_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """x (B, L, width) with zeros behind each sequence."""
    return x * valid(x, lengths).unsqueeze(-1)
