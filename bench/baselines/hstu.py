"""HSTU, padded: the whole (B, H, L, L) score matrix, masked (arXiv:2402.17152, equations 1-3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.baselines.padding import zero_padding

EPS = 1e-6
BUCKET_WIDTH = 0.301
"""Width of a time bucket in log seconds: log10(2), as the article's code has it."""


class PaddedHSTU(nn.Module):
    """`uqabench.encoders.HSTU` on padded sequences, with its parameters."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.config, self.blocks = encoder.config, encoder.blocks

    def forward(self, x: Tensor, lengths: Tensor, timestamps: Tensor | None = None) -> Tensor:
        """States (B, L, width) of x (B, L, width), lengths int64 (B,), timestamps int64 (B, L) in seconds or None."""
        mask = torch.ones(x.shape[1], x.shape[1], dtype=x.dtype, device=x.device).tril()
        for block in self.blocks:
            x = self._block(block, x, mask, timestamps)
        return zero_padding(x, lengths)

    def _block(self, block: nn.Module, x: Tensor, mask: Tensor, timestamps: Tensor | None) -> Tensor:
        config, width = self.config, x.shape[-1]
        qk_width, v_width = config.heads * config.qk_dim, config.heads * config.v_dim
        mixed = F.silu(F.layer_norm(x, (width,), eps=EPS) @ block.uvqk.weight.T)
        u, v, q, k = mixed.split([v_width, v_width, qk_width, qk_width], dim=-1)
        q, k, v = (part.unflatten(-1, (config.heads, -1)).transpose(1, 2) for part in (q, k, v))
        scores = q @ k.transpose(-1, -2)
        if timestamps is not None and config.bias == "auto":
            scores = scores + self._bias(block, timestamps).unsqueeze(1)
        weights = F.silu(scores) / config.max_len * mask
        attended = (weights @ v).transpose(1, 2).flatten(2)
        gated = u * F.layer_norm(attended, (v_width,), eps=EPS)
        return x + block.out(F.dropout(gated, config.dropout, self.training))

    def _bias(self, block: nn.Module, timestamps: Tensor) -> Tensor:
        """Relative position and time bias (B, L, L) of a query (row) and a key (column)."""
        config = self.config
        gap = (timestamps[:, :, None] - timestamps[:, None, :]).abs().clamp(min=1).double()
        bucket = (gap.log() / BUCKET_WIDTH).long().clamp(0, config.time_buckets)
        index = torch.arange(timestamps.shape[1], device=timestamps.device)
        distance = index[:, None] - index[None, :]
        return block.position_bias[distance + config.max_len - 1] + block.time_bias[bucket]
