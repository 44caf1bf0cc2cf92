"""GRU4Rec: gated recurrent units for sequential recommendation (arXiv:1511.06939), as published for UQABench."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uqabench.encoders.layers import LayerNorm, as_product_input, cast, init_gaussian
from uqabench.encoders.registry import register
from uqabench.kernels import gru
from uqabench.settings.encoders import GRU4RecConfig


class GRULayer(nn.Module):
    """One layer without biases, h_t = (1 - z) n + z h_{t-1}; gates in the order r, z, n as in `torch.nn.GRU`."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(3 * hidden, inputs))
        self.weight_hh = nn.Parameter(torch.empty(3 * hidden, hidden))

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        return self._run(x, offsets)

    def append(self, state: Tensor | None, x: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """The hidden states (T, hidden), and the last of each history (1, B, hidden)."""
        return self._run(x, offsets, h0=state, return_state=True)

    def _run(self, x: Tensor, offsets: Tensor, **state: Any) -> Any:
        x = as_product_input(x)
        weights = (cast(self.weight_ih, x), cast(self.weight_hh, x), None, None)
        with torch.autocast(x.device.type, enabled=False):  # the kernel chooses the precision of its own products
            return gru(x, [weights], offsets, **state)


@register("gru4rec")
class GRU4Rec(nn.Module):
    """GRU layers with dropout on each layer's input, a Linear from `hidden` to `width`, a layer norm."""

    causal = True
    is_recurrent = True

    def __init__(self, config: GRU4RecConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        inputs = [config.width] + [config.hidden] * (config.layers - 1)
        self.layers = nn.ModuleList(GRULayer(size, config.hidden) for size in inputs)
        self.dense = nn.Linear(config.hidden, config.width)
        self.norm = LayerNorm(config.width)
        init_gaussian(self, config.init_std)
        for parameter in self.layers.parameters():
            nn.init.normal_(parameter, std=config.init_std)

    def forward(self, x: Tensor, offsets: Tensor, timestamps: Tensor | None = None) -> Tensor:
        """Map (T, width) and offsets int64 (B+1,) to states (T, width); `timestamps` are not used."""
        hidden = x
        for layer in self.layers:
            hidden = layer(F.dropout(hidden, self.config.dropout, self.training), offsets)
        return self.norm(cast(self.dense(hidden), x))

    def append(
        self, state: tuple[Tensor, ...] | None, x: Tensor, offsets: Tensor, timestamps: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """States of inputs that continue histories, and the histories' new state: each layer's last hidden state."""
        hidden, kept = x, []
        for layer, last in zip(self.layers, state or (None,) * len(self.layers), strict=True):
            hidden, last = layer.append(last, F.dropout(hidden, self.config.dropout, self.training), offsets)
            kept.append(last)
        return self.norm(cast(self.dense(hidden), x)), tuple(kept)
