"""Mamba4Rec, padded, on transformers' Mamba-1 block as it runs on a CPU: a Python loop over tokens."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer

from bench.baselines.padding import zero_padding


class SharedConv(nn.Module):
    """The `weight` (C, 1, K) and `bias` (C,) that transformers' block looks for, on our (C, K) parameter."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.taps, self.bias = conv.weight, conv.bias

    @property
    def weight(self) -> Tensor:
        return self.taps.unsqueeze(1)


def transformers_mixer(mixer: nn.Module, width: int) -> MambaMixer:
    """transformers' block with the parameters of our `S6Mixer`."""
    inner, taps = mixer.conv.weight.shape
    config = MambaConfig(
        hidden_size=width, state_size=mixer.state, expand=inner // width, conv_kernel=taps, num_hidden_layers=1,
        time_step_rank=mixer.rank, use_bias=False, use_conv_bias=True, hidden_act="silu", use_mambapy=False,
    )  # fmt: skip
    own = MambaMixer(config, layer_idx=0)
    own.conv1d = SharedConv(mixer.conv)
    own.dt_proj.weight, own.dt_proj.bias = mixer.dt_proj.weight, mixer.dt_bias
    own.A_log, own.D = mixer.A_log, mixer.D
    own.in_proj, own.x_proj, own.out_proj = mixer.in_proj, mixer.x_proj, mixer.out_proj
    return own


class PaddedMamba4Rec(nn.Module):
    """`uqabench.encoders.Mamba4Rec` on padded sequences, with its parameters."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.config, self.norm, self.layers = encoder.config, encoder.norm, encoder.layers
        self.mixers = nn.ModuleList(transformers_mixer(layer.mixer, encoder.width) for layer in encoder.layers)

    def forward(self, x: Tensor, lengths: Tensor, timestamps: Tensor | None = None) -> Tensor:
        """States (B, L, width) of x (B, L, width) and lengths int64 (B,); `timestamps` are not used."""
        x = self._normalise(self._drop(x), self.norm)
        for layer, mixer in zip(self.layers, self.mixers, strict=True):
            x = self._normalise(x + self._drop(mixer(x)), layer.norm1)
            x = self._normalise(x + self._drop(layer.down(self._drop(F.gelu(layer.up(x))))), layer.norm2)
        return zero_padding(x, lengths)

    def _normalise(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training)
