"""SASRec, padded: `torch.nn.TransformerEncoderLayer`, whose names the published checkpoints have."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from bench.baselines.padding import zero_padding


class PaddedSASRec(nn.Module):
    """`uqabench.encoders.SASRec` on padded sequences, with its parameters.

    In training, torch's layer also drops attention probabilities, which ours does not: with dropout the two are equal
    in expectation of work, not in value.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.config = encoder.config
        self.position_embedding = encoder.position_embedding
        self.layers = nn.ModuleList(_torch_layer(layer, self.config) for layer in encoder.layers)
        self.norm = _torch_norm(encoder.norm)

    def forward(self, x: Tensor, lengths: Tensor, timestamps: Tensor | None = None) -> Tensor:
        """States (B, L, width) of x (B, L, width) and lengths int64 (B,); `timestamps` are not used."""
        x = x + self.position_embedding.weight[: x.shape[1]]
        x = F.dropout(x, self.config.dropout, self.training)
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype, device=x.device)
        for layer in self.layers:
            x = layer(x, src_mask=mask, is_causal=True)
        return zero_padding(self.norm(x), lengths)


def _torch_norm(norm: nn.LayerNorm) -> nn.LayerNorm:
    """torch's own layer norm with the parameters of ours."""
    own = nn.LayerNorm(norm.normalized_shape, norm.eps)
    own.weight, own.bias = norm.weight, norm.bias
    return own


def _torch_layer(layer: nn.Module, config) -> nn.TransformerEncoderLayer:
    """torch's post-norm layer with the parameters of one of ours: both stack q, k, v in one matrix."""
    own = nn.TransformerEncoderLayer(
        config.width, config.heads, config.inner, config.dropout, activation="relu", batch_first=True, norm_first=False
    )
    own.self_attn.in_proj_weight, own.self_attn.in_proj_bias = layer.qkv.weight, layer.qkv.bias
    own.self_attn.out_proj.weight, own.self_attn.out_proj.bias = layer.out.weight, layer.out.bias
    own.linear1, own.linear2 = layer.up, layer.down
    own.norm1, own.norm2 = _torch_norm(layer.norm1), _torch_norm(layer.norm2)
    return own
