"""GRU4Rec, padded: `torch.nn.GRU` over (B, L, width), which runs every sequence to the longest one's end."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from bench.baselines.padding import zero_padding


class PaddedGRU4Rec(nn.Module):
    """`uqabench.encoders.GRU4Rec` on padded sequences, with its parameters."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        config = self.config = encoder.config
        # Ours drops each layer's input: the first here, those of later layers (outputs of earlier ones) in torch.
        self.gru = nn.GRU(
            config.width, config.hidden, config.layers, bias=False, batch_first=True,
            dropout=config.dropout if config.layers > 1 else 0.0,
        )  # fmt: skip
        for i, layer in enumerate(encoder.layers):
            setattr(self.gru, f"weight_ih_l{i}", layer.weight_ih)
            setattr(self.gru, f"weight_hh_l{i}", layer.weight_hh)
        self.dense, self.norm = encoder.dense, encoder.norm

    def forward(self, x: Tensor, lengths: Tensor, timestamps: Tensor | None = None) -> Tensor:
        """States (B, L, width) of x (B, L, width) and lengths int64 (B,); `timestamps` are not used."""
        hidden, _ = self.gru(F.dropout(x, self.config.dropout, self.training))
        states = F.layer_norm(self.dense(hidden), x.shape[-1:], self.norm.weight, self.norm.bias, self.norm.eps)
        return zero_padding(states, lengths)
