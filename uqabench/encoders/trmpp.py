"""Trm++: a causal Transformer with RoPE (arXiv:2104.09864), RMSNorm and SwiGLU (arXiv:2002.05202)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional as F

from uqabench.encoders.layers import RMSNorm, init_gaussian, places_behind
from uqabench.encoders.registry import register
from uqabench.kernels import causal_attention, causal_attention_step, rope, swiglu
from uqabench.kernels.key_values import KeyValues
from uqabench.kernels.rope import rope_at
from uqabench.settings.encoders import TrmPPConfig


class TrmPPLayer(nn.Module):
    """x = x + attention(RMSNorm(x)); x = x + down(SiLU(gate h) * up h) with h = RMSNorm(x). No biases."""

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

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        q, k, v = self._heads(x)
        q, k = rope(q, k, offsets, self.config.rope_base)
        return self._mix(x, causal_attention(q, k, v, offsets))

    def append(self, cache: KeyValues | None, x: Tensor, offsets: Tensor) -> tuple[Tensor, KeyValues]:
        q, k, v = self._heads(x)
        q, k = rope_at(q, k, places_behind(cache, offsets, x.shape[0]), self.config.rope_base)
        attended, cache = causal_attention_step(q, k, v, offsets, cache)
        return self._mix(x, attended), cache

    def _heads(self, x: Tensor) -> Iterator[Tensor]:
        parts = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        return (part.unflatten(-1, (self.config.heads, -1)) for part in parts)

    def _mix(self, x: Tensor, attended: Tensor) -> Tensor:
        attended = attended.reshape(x.shape)
        hidden, x = self.norm2.add(F.dropout(self.out(attended), self.config.dropout, self.training), x)
        hidden = self.down(swiglu(self.gate(hidden), self.up(hidden)))
        return x + F.dropout(hidden, self.config.dropout, self.training)


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
        for layer in self.layers:
            x = layer(x, offsets)
        return x

    def append(
        self, state: tuple[KeyValues, ...] | None, x: Tensor, offsets: Tensor, timestamps: Tensor | None = None
    ) -> tuple[Tensor, tuple[KeyValues, ...]]:
        """States of inputs that continue histories, and the histories' new state: keys and values of every layer."""
        kept = []
        for layer, cache in zip(self.layers, state or (None,) * len(self.layers), strict=True):
            x, cache = layer.append(cache, x, offsets)
            kept.append(cache)
        return x, tuple(kept)
