"""Parts that several encoders share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from uqabench.errors import InputError
from uqabench.kernels import layer_norm, rms_norm
from uqabench.kernels.checks import host_array, host_longest
from uqabench.kernels.key_values import KeyValues
from uqabench.kernels.memory import remember

EMBEDDING_STD = 0.02
"""Standard deviation with which embedding tables start, at any width."""


class LayerNorm(nn.LayerNorm):
    """Layer normalisation of (T, width) by the kernel; parameters as in `torch.nn.LayerNorm`."""

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, cast(self.weight, x), cast(self.bias, x), eps=self.eps)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension of (T, width)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """In `dtype`; None: in that of x."""
        return rms_norm(x, cast(self.weight, x), self.eps, dtype=dtype)

    def add(self, update: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """(the normalised sum as `update`, the sum as `residual`) of a block's update and its residual stream, which
        may be of a wider dtype, in one pass over memory."""
        return rms_norm(update, cast(self.weight, residual), self.eps, residual)


def cast(x: Tensor, like: Tensor) -> Tensor:
    """`x` in the dtype of `like`: under autocast, some activations are bfloat16 and parameters are not."""
    return x.to(like.dtype)


def as_product_input(x: Tensor) -> Tensor:
    """`x` in the dtype that torch's autocast gives to the inputs of matrix products; `x` itself without autocast."""
    return x.to(product_dtype(x))


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which x enters a matrix product."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def full_precision(x: Tensor) -> Tensor:
    """`x` in float32, or in float64 if it is that already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def positions(offsets: Tensor, tokens: int) -> Tensor:
    """Index of each of `tokens` packed tokens in its own sequence: int64 (T,), from 0, once a batch."""

    def count() -> Tensor:
        token = torch.arange(tokens, device=offsets.device)
        return token - offsets[torch.searchsorted(offsets, token, right=True) - 1]

    return count() if torch.compiler.is_compiling() else remember(offsets, "positions", count)


def check_longest(offsets: Tensor, max_len: int, encoder: str) -> None:
    """InputError when a sequence is longer than the encoder was built for (not while torch.compile traces)."""
    if torch.compiler.is_compiling():
        return
    longest = host_longest(offsets)
    if longest > max_len:
        raise InputError(
            f"A sequence has {longest} items, but {encoder} was built with max_len = {max_len}: "
            f"cut the sequences to the last {max_len} or build it with max_len = {longest}."
        )


def places_behind(cache: KeyValues | None, offsets: Tensor, tokens: int) -> Tensor:
    """Index of each of `tokens` new tokens in its history, which continues a cached one: int64 (T,)."""
    place = positions(offsets, tokens)
    if cache is None:
        return place
    return place + torch.repeat_interleave(cache.offsets.diff(), offsets.diff(), output_size=tokens)


def check_room(cache: KeyValues | None, offsets: Tensor, max_len: int, encoder: str) -> None:
    """InputError when a history gets longer than the encoder was built for."""
    new = host_array(offsets)
    longest = int(np.diff(new if cache is None else new + host_array(cache.offsets)).max(initial=0))
    if longest > max_len:
        raise InputError(
            f"A history has {longest} items with those appended, but {encoder} was built with max_len = {max_len}: "
            f"begin it anew with the last {max_len} (state None) or build the encoder with max_len = {longest}."
        )


@torch.no_grad()
def init_gaussian(module: nn.Module, std: float) -> None:
    """The paper's Gaussian initialisation (section 4.1.4): Linear N(0, std^2), biases 0; norms stay at 1 and 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
