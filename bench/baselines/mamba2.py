"""Mamba-2, padded, on transformers' block as it runs on a CPU: chunks of the sequence as batched products."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Mamba2Config
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

from bench.baselines.mamba1 import SharedConv
from bench.baselines.padding import zero_padding


def transformers_mixer(mixer: nn.Module, width: int) -> Mamba2Mixer:
    """transformers' block with the parameters of our `SSDMixer`."""
    config = Mamba2Config(
        hidden_size=width, num_heads=mixer.heads, head_dim=mixer.head_dim, state_size=mixer.state,
        expand=mixer.inner // width, n_groups=1, conv_kernel=mixer.conv.weight.shape[1], num_hidden_layers=1,
        layer_norm_epsilon=mixer.norm.eps, use_bias=False, use_conv_bias=True, hidden_act="silu",
    )  # fmt: skip
    own = Mamba2Mixer(config, layer_idx=0)
    own.conv1d = SharedConv(mixer.conv)
    own.dt_bias, own.A_log, own.D = mixer.dt_bias, mixer.A_log, mixer.D
    own.norm.weight = mixer.norm.weight
    own.in_proj, own.out_proj = mixer.in_proj, mixer.out_proj
    return own


class PaddedMamba2(nn.Module):
    """`uqabench.encoders.Mamba2` on padded sequences, with its parameters."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.config, self.norms = encoder.config, encoder.norms
        self.mixers = nn.ModuleList(transformers_mixer(mixer, encoder.width) for mixer in encoder.mixers)

    def forward(self, x: Tensor, lengths: Tensor, timestamps: Tensor | None = None) -> Tensor:
        """States (B, L, width) of x (B, L, width) and lengths int64 (B,); `timestamps` are not used."""
        for norm, mixer in zip(self.norms, self.mixers, strict=True):
            update = mixer(F.rms_norm(x, x.shape[-1:], norm.weight, norm.eps))
            x = x + F.dropout(update, self.config.dropout, self.training)
        return zero_padding(x, lengths)
