"""Mamba4Rec (arXiv:2403.03900) on Mamba-1 blocks, and the published variant on Mamba-2 blocks."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uqabench.encoders.layers import LayerNorm, RMSNorm, cast, full_precision, init_gaussian
from uqabench.encoders.registry import register
from uqabench.kernels import causal_conv1d, selective_scan, ssd_scan
from uqabench.settings.encoders import Mamba2Config, Mamba4RecConfig

DT_RANGE = (0.001, 0.1)


class MixerState(NamedTuple):
    """Of B histories: the convolution's last inputs (B, channels, taps - 1), and the state of the scan."""

    inputs: Tensor | None
    scan: Tensor | None


class CausalConv(nn.Module):
    """Depthwise causal convolution of (T, channels) that stops at sequence starts, then SiLU."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        # N(0, 0.02^2) taps would shrink the signal by 25; this std is that of torch's default, uniform(±1/sqrt(taps)).
        self.weight = nn.Parameter(torch.randn(channels, taps) / math.sqrt(3 * taps))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, offsets: Tensor, **state: Any) -> Any:
        """With the kernel's `return_state`, also the last inputs of each history."""
        return causal_conv1d(x, cast(self.weight, x), cast(self.bias, x), offsets, activation="silu", **state)


def initial_dt_bias(size: int) -> Tensor:
    """softplus^-1 of step sizes drawn log-uniformly from DT_RANGE (arXiv:2312.00752, section 3.6)."""
    low, high = (math.log(bound) for bound in DT_RANGE)
    dt = torch.exp(low + torch.rand(size) * (high - low))
    return dt + torch.log(-torch.expm1(-dt))


class S6Mixer(nn.Module):
    """The Mamba-1 block (arXiv:2312.00752, figure 3): gated selective scan with A diagonal in each channel."""

    def __init__(self, config: Mamba4RecConfig) -> None:
        super().__init__()
        inner = config.expand * config.width
        self.rank = config.dt_rank or math.ceil(config.width / 16)
        self.state = config.state
        self.in_proj = nn.Linear(config.width, 2 * inner, bias=False)
        self.conv = CausalConv(inner, config.conv)
        self.x_proj = nn.Linear(inner, self.rank + 2 * config.state, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner, bias=False)
        self.dt_bias = nn.Parameter(initial_dt_bias(inner))
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, config.state + 1).repeat(inner, 1)))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, config.width, bias=False)

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        u, z = self.in_proj(x).chunk(2, dim=-1)
        return self.out_proj(self._scan(self.conv(u, offsets), z, offsets))

    def append(self, state: MixerState | None, x: Tensor, offsets: Tensor) -> tuple[Tensor, MixerState]:
        before = state or MixerState(None, None)
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u, inputs = self.conv(u, offsets, initial_state=before.inputs, return_state=True)
        y, scan = self._scan(u, z, offsets, initial_state=before.scan, return_state=True)
        return self.out_proj(y), MixerState(inputs, scan)

    def _scan(self, u: Tensor, z: Tensor, offsets: Tensor, **state: Any) -> Any:
        dt, b, c = self.x_proj(u).split([self.rank, self.state, self.state], dim=-1)
        a = -torch.exp(full_precision(self.A_log))
        delta = self.dt_proj(dt)
        return selective_scan(u, delta, a, b, c, self.D, z, self.dt_bias, offsets, delta_softplus=True, **state)


class SSDMixer(nn.Module):
    """The Mamba-2 block (arXiv:2405.21060, section 7): one decay a head, one B and C for all heads, gated RMSNorm."""

    def __init__(self, config: Mamba2Config) -> None:
        super().__init__()
        self.inner, self.state, self.head_dim = config.expand * config.width, config.state, config.head_dim
        self.heads = self.inner // config.head_dim
        self.in_proj = nn.Linear(config.width, 2 * (self.inner + self.state) + self.heads, bias=False)
        self.conv = CausalConv(self.inner + 2 * self.state, config.conv)
        self.dt_bias = nn.Parameter(initial_dt_bias(self.heads))
        self.A_log = nn.Parameter(torch.log(1 + 15 * torch.rand(self.heads)))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = RMSNorm(self.inner)
        self.out_proj = nn.Linear(self.inner, config.width, bias=False)

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        z, mixed, dt = self._project(x)
        return self.out_proj(self.norm(self._scan(self.conv(mixed, offsets), z, dt, offsets).flatten(1)))

    def append(self, state: MixerState | None, x: Tensor, offsets: Tensor) -> tuple[Tensor, MixerState]:
        before = state or MixerState(None, None)
        z, mixed, dt = self._project(x)
        mixed, inputs = self.conv(mixed, offsets, initial_state=before.inputs, return_state=True)
        y, scan = self._scan(mixed, z, dt, offsets, initial_state=before.scan, return_state=True)
        return self.out_proj(self.norm(y.flatten(1))), MixerState(inputs, scan)

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.in_proj(x).split([self.inner, self.inner + 2 * self.state, self.heads], dim=-1)

    def _scan(self, mixed: Tensor, z: Tensor, dt: Tensor, offsets: Tensor, **state: Any) -> Any:
        u, b, c = mixed.split([self.inner, self.state, self.state], dim=-1)
        u, z = (part.unflatten(-1, (self.heads, self.head_dim)) for part in (u, z))
        a = -torch.exp(full_precision(self.A_log))
        b, c = b.unsqueeze(1), c.unsqueeze(1)
        return ssd_scan(u, dt, a, b, c, self.D, z, self.dt_bias, offsets, dt_softplus=True, **state)


class Mamba4RecLayer(nn.Module):
    """x = LN(x + S6(x)); x = LN(x + W2 GELU(W1 x)), dropout on both branches and on the GELU."""

    def __init__(self, config: Mamba4RecConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.mixer = S6Mixer(config)
        self.norm1 = LayerNorm(config.width)
        self.up = nn.Linear(config.width, config.inner)
        self.down = nn.Linear(config.inner, config.width)
        self.norm2 = LayerNorm(config.width)

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        return self._mix(x, self.mixer(x, offsets))

    def append(self, state: MixerState | None, x: Tensor, offsets: Tensor) -> tuple[Tensor, MixerState]:
        update, state = self.mixer.append(state, x, offsets)
        return self._mix(x, update), state

    def _mix(self, x: Tensor, update: Tensor) -> Tensor:
        x = self.norm1(x + self._drop(update))
        return self.norm2(x + self._drop(self.down(self._drop(F.gelu(self.up(x))))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


@register("mamba4rec")
class Mamba4Rec(nn.Module):
    """Layer norm and dropout of the input, then Mamba-1 layers with feed-forward networks."""

    causal = True

    def __init__(self, config: Mamba4RecConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.norm = LayerNorm(config.width)
        self.layers = nn.ModuleList(Mamba4RecLayer(config) for _ in range(config.layers))
        init_gaussian(self, config.init_std)
        for layer in self.layers:  # unit gain from the low-rank step sizes (arXiv:2312.00752, section 3.6)
            nn.init.normal_(layer.mixer.dt_proj.weight, std=layer.mixer.rank**-0.5)

    def forward(self, x: Tensor, offsets: Tensor, timestamps: Tensor | None = None) -> Tensor:
        """Map (T, width) and offsets int64 (B+1,) to states (T, width); `timestamps` are not used."""
        x = self.norm(F.dropout(x, self.config.dropout, self.training))
        for layer in self.layers:
            x = layer(x, offsets)
        return x

    def append(
        self, state: tuple[MixerState, ...] | None, x: Tensor, offsets: Tensor, timestamps: Tensor | None = None
    ) -> tuple[Tensor, tuple[MixerState, ...]]:
        """States of inputs that continue histories, and the histories' new state, a `MixerState` a layer."""
        x, kept = self.norm(F.dropout(x, self.config.dropout, self.training)), []
        for layer, before in zip(self.layers, state or (None,) * len(self.layers), strict=True):
            x, after = layer.append(before, x, offsets)
            kept.append(after)
        return x, tuple(kept)


@register("mamba2")
class Mamba2(nn.Module):
    """Mamba-2 blocks on a pre-norm residual stream kept in fp32, with no final norm: the published variant."""

    causal = True

    def __init__(self, config: Mamba2Config) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.norms = nn.ModuleList(RMSNorm(config.width) for _ in range(config.layers))
        self.mixers = nn.ModuleList(SSDMixer(config) for _ in range(config.layers))
        init_gaussian(self, config.init_std)

    def forward(self, x: Tensor, offsets: Tensor, timestamps: Tensor | None = None) -> Tensor:
        """Map (T, width) and offsets int64 (B+1,) to states (T, width); `timestamps` are not used."""
        residual = full_precision(x)
        for norm, mixer in zip(self.norms, self.mixers, strict=True):
            update = mixer(norm(residual).to(x.dtype), offsets)
            residual = residual + F.dropout(update, self.config.dropout, self.training)
        return residual.to(x.dtype)

    def append(
        self, state: tuple[MixerState, ...] | None, x: Tensor, offsets: Tensor, timestamps: Tensor | None = None
    ) -> tuple[Tensor, tuple[MixerState, ...]]:
        """States of inputs that continue histories, and the histories' new state, a `MixerState` a block."""
        residual, kept = full_precision(x), []
        befores = state or (None,) * len(self.mixers)
        for norm, mixer, before in zip(self.norms, self.mixers, befores, strict=True):
            update, after = mixer.append(before, norm(residual).to(x.dtype), offsets)
            residual = residual + F.dropout(update, self.config.dropout, self.training)
            kept.append(after)
        return residual.to(x.dtype), tuple(kept)
