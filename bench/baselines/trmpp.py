"""Trm++, padded: torch's own fused attention over (B, H, L, D), RoPE from tables of cosines and sines."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.baselines.padding import zero_padding


class PaddedTrmPP(nn.Module):
    """`uqabench.encoders.TrmPP` on padded sequences, with its parameters.

    What is published does not say how attention is computed; `scaled_dot_product_attention` is the fastest that torch
    offers, so the baseline is not slower than it has to be.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.config, self.layers = encoder.config, encoder.layers

    def forward(self, x: Tensor, lengths: Tensor, timestamps: Tensor | None = None) -> Tensor:
        """States (B, L, width) of x (B, L, width) and lengths int64 (B,); `timestamps` are not used."""
        rotation = rotation_tables(x.shape[1], self.config.width // self.config.heads, self.config.rope_base, x)
        for layer in self.layers:
            x = x + self._drop(self._attend(layer, x, rotation))
            hidden = F.rms_norm(x, x.shape[-1:], layer.norm2.weight, layer.norm2.eps)
            x = x + self._drop(layer.down(F.silu(layer.gate(hidden)) * layer.up(hidden)))
        return zero_padding(x, lengths)

    def _attend(self, layer: nn.Module, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        hidden = F.rms_norm(x, x.shape[-1:], layer.norm1.weight, layer.norm1.eps)
        parts = (part.unflatten(-1, (self.config.heads, -1)).transpose(1, 2) for part in layer.qkv(hidden).chunk(3, -1))
        q, k, v = parts
        q, k = rotate(q, rotation), rotate(k, rotation)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return layer.out(attended.transpose(1, 2).flatten(2))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training)


def rotation_tables(length: int, width: int, base: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine (L, width) of position * base^(-2c/width), each half the same; at least fp32."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    frequency = base ** (-torch.arange(0, width, 2, dtype=dtype, device=like.device) / width)
    angle = torch.arange(length, dtype=dtype, device=like.device)[:, None] * torch.cat([frequency, frequency])
    return angle.cos(), angle.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """x (B, H, L, D) turned: component c with component c + D/2 (RoFormer, section 3.4.2, half-split)."""
    cosine, sine = rotation
    left, right = x.to(cosine.dtype).chunk(2, dim=-1)
    turned = torch.cat([left, right], -1) * cosine + torch.cat([-right, left], -1) * sine
    return turned.to(x.dtype)
