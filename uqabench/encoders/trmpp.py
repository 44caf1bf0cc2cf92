"""Trm++: a causal Transformer with RoPE (arXiv:2104.09864), RMSNorm and SwiGLU (arXiv:2002.05202)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uqabench.encoders.layers import RMSNorm, as_product_input, init_gaussian, places_behind, product_dtype
from uqabench.encoders.registry import register
from uqabench.kernels import causal_attention, causal_attention_step, rope, swiglu
from uqabench.kernels.backend import choose
from uqabench.kernels.key_values import KeyValues
from uqabench.kernels.rope import Angles, rope_angles, rope_at
from uqabench.settings.encoders import TrmPPConfig


class TrmPPLayer(nn.Module):
    """x = x + attention(RMSNorm(x)); x = x + down(SiLU(gate h) * up h) with h = RMSNorm(x). No biases.

    The second sum is left to the next layer, whose norm makes it on a GPU: a layer takes and returns the residual
    stream and the update that it lacks (None: nothing).
    """

    def __init__(self, config: TrmPPConfig) -> None:
        super().__init__()
        width, inner = config.width, config.inner_width
        self.config = config
        self.norm1 = RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm2 = RMSNorm(width)
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(
        self, x: Tensor, update: Tensor | None, offsets: Tensor, angles: Angles | None
    ) -> tuple[Tensor, Tensor]:
        hidden, x = self._begin(x, update)
        q, k, v = self._heads(hidden)
        q, k = rope(q, k, offsets, self.config.rope_base, angles)
        return self._mix(x, causal_attention(q, k, v, offsets))

    def append(
        self, cache: KeyValues | None, x: Tensor, update: Tensor | None, offsets: Tensor
    ) -> tuple[Tensor, Tensor, KeyValues]:
        hidden, x = self._begin(x, update)
        q, k, v = self._heads(hidden)
        q, k = rope_at(q, k, places_behind(cache, offsets, x.shape[0]), self.config.rope_base)
        attended, cache = causal_attention_step(q, k, v, offsets, cache)
        return *self._mix(x, attended), cache

    def _begin(self, x: Tensor, update: Tensor | None) -> tuple[Tensor, Tensor]:
        """The first norm of x + update, and that sum."""
        if update is not None:
            if choose("rms_norm", x.device.type, x.dtype) == "triton":
                return self.norm1.add(update, x)
            x = x + update  # apart on a CPU, whose kernel rounds the gradients' sum once less
        return self.norm1(x, product_dtype(x)), x

    def _heads(self, hidden: Tensor) -> Iterator[Tensor]:
        return (part.unflatten(-1, (self.config.heads, -1)) for part in self.qkv(hidden).chunk(3, dim=-1))

    def _mix(self, x: Tensor, attended: Tensor) -> tuple[Tensor, Tensor]:
        attended = self._drop(self.out(attended.reshape(x.shape)))
        hidden, x = self.norm2.add(attended, x)
        return x, self._drop(self.down(self._gated(hidden)))

    def _gated(self, hidden: Tensor) -> Tensor:
        """SiLU(gate h) * up h: on a GPU from one product with both weights, whose gradient is one product as well."""
        if choose("swiglu", hidden.device.type, hidden.dtype) != "triton":
            return swiglu(self.gate(hidden), self.up(hidden))
        return swiglu(F.linear(hidden, torch.cat([as_product_input(part.weight) for part in (self.gate, self.up)])))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training)


@register("trm++")
class TrmPP(nn.Module):
    """A stack of `TrmPPLayer`, with no final norm, as published.

    The two projections onto the residual stream start with std `init_std / sqrt(2 layers)`.
    """

    causal = True

    def __init__(self, config: TrmPPConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.layers = nn.ModuleList(TrmPPLayer(config) for _ in range(config.layers))
        init_gaussian(self, config.init_std)
        for layer in self.layers:
            for projection in (layer.out, layer.down):
                nn.init.normal_(projection.weight, std=config.init_std / math.sqrt(2 * config.layers))

    def forward(self, x: Tensor, offsets: Tensor, timestamps: Tensor | None = None) -> Tensor:
        """Map (T, width) and offsets int64 (B+1,) to states (T, width); `timestamps` are not used."""
        update, angles = None, rope_angles(x, offsets, self.width // self.config.heads, self.config.rope_base)
        for layer in self.layers:
            x, update = layer(x, update, offsets, angles)
        return x + update

    def append(
        self, state: tuple[KeyValues, ...] | None, x: Tensor, offsets: Tensor, timestamps: Tensor | None = None
    ) -> tuple[Tensor, tuple[KeyValues, ...]]:
        """States of inputs that continue histories, and the histories' new state: keys and values of every layer."""
        update, kept = None, []
        for layer, cache in zip(self.layers, state or (None,) * len(self.layers), strict=True):
            x, update, cache = layer.append(cache, x, update, offsets)
            kept.append(cache)
        return x + update, tuple(kept)
